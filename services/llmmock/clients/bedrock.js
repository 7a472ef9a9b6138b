// The AWS SDK's client for Bedrock's runtime.
import assert from 'node:assert/strict';
import {BedrockRuntimeClient, BedrockRuntimeServiceException, ConverseCommand, ConverseStreamCommand, CountTokensCommand, InvokeModelCommand,
  InvokeModelWithResponseStreamCommand, ModelStreamErrorException, ServiceUnavailableException, ThrottlingException, ValidationException, AccessDeniedException,
  ResourceNotFoundException, InternalServerException} from '@aws-sdk/client-bedrock-runtime';
import {all, asks, check, leaves, png, rejected, run} from './checks.js';

const client = new BedrockRuntimeClient({maxAttempts: 1});
const modelId = of => `eu.anthropic.claude-haiku-4-5-${of}`;
const ask = (of, text, more) => ({modelId: modelId(of), messages: [{role: 'user', content: [{text}]}], ...more});
const toolConfig = {tools: [{toolSpec: {name: 'get_weather', description: 'Weather of a city',
  inputSchema: {json: {type: 'object', properties: {city: {type: 'string'}}, required: ['city']}}}}]};
const decode = bytes => JSON.parse(new TextDecoder().decode(bytes));
const converse = (of, text, more) => client.send(new ConverseCommand(ask(of, text, more)));
const stream = async (of, text, more) => all((await client.send(new ConverseStreamCommand(ask(of, text, more)))).stream);

check('Converse', async () => {
  const r = await converse('echo', 'ping', {system: [{text: 'Be brief.'}], inferenceConfig: {maxTokens: 100, temperature: 0.5}});
  assert.deepEqual(r.output.message, {role: 'assistant', content: [{text: 'ping'}]});
  assert.equal(r.stopReason, 'end_turn');
  assert.equal(r.usage.totalTokens, r.usage.inputTokens + r.usage.outputTokens);
  assert.equal(typeof r.metrics.latencyMs, 'number');
  assert.ok(r.$metadata.requestId && r.$metadata.attempts === 1);
});

check('Converse: images and documents', async () => {
  const r = await client.send(new ConverseCommand({modelId: modelId('plain'), messages: [{role: 'user', content: [{text: 'What are these?'},
    {image: {format: 'png', source: {bytes: Buffer.from(png, 'base64')}}}, {document: {format: 'txt', name: 'book', source: {bytes: Buffer.from('A book.')}}}]}]}));
  assert.ok(r.output.message.content[0].text);
});

check('ConverseStream', async () => {
  const events = await stream('echo', 'one two three four');
  assert.deepEqual([...new Set(events.map(e => Object.keys(e)[0]))], ['messageStart', 'contentBlockDelta', 'contentBlockStop', 'messageStop', 'metadata']);
  assert.equal(events.map(e => e.contentBlockDelta?.delta.text ?? '').join(''), 'one two three four');
  const {usage} = events.at(-1).metadata;
  assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
  assert.equal(events.find(e => e.messageStop).messageStop.stopReason, 'end_turn');
});

check('tool calls', async () => {
  const asked = await converse('weather', 'How is the weather?', {toolConfig});
  assert.equal(asked.stopReason, 'tool_use');
  const {toolUse} = asked.output.message.content.find(c => c.toolUse);
  assert.deepEqual([toolUse.name, toolUse.input], ['get_weather', {city: 'Oslo'}]);
  const answered = await client.send(new ConverseCommand({modelId: modelId('weather'), toolConfig, messages: [...ask('', 'How is the weather?').messages, asked.output.message,
    {role: 'user', content: [{toolResult: {toolUseId: toolUse.toolUseId, content: [{text: 'snow'}], status: 'success'}}]}]}));
  assert.equal(answered.output.message.content[0].text, 'It is snow.');
  const events = await stream('weather', 'How is the weather?', {toolConfig});
  assert.equal(events.find(e => e.contentBlockStart).contentBlockStart.start.toolUse.name, 'get_weather');
  assert.deepEqual(JSON.parse(events.map(e => e.contentBlockDelta?.delta.toolUse?.input ?? '').join('')), {city: 'Oslo'});
});

check('reasoning and the cache', async () => {
  const thinking = {additionalModelRequestFields: {thinking: {type: 'enabled', budget_tokens: 1024}}, inferenceConfig: {maxTokens: 4000}};
  const r = await converse('thinker', 'Six times seven?', thinking);
  assert.deepEqual(r.output.message.content.map(c => Object.keys(c)[0]), ['reasoningContent', 'text']);
  assert.ok(r.output.message.content[0].reasoningContent.reasoningText.signature);
  assert.equal(r.usage.cacheReadInputTokens, 4);
  const events = await stream('thinker', 'Six times seven?', thinking);
  assert.equal(events.map(e => e.contentBlockDelta?.delta.reasoningContent?.text ?? '').join(''), r.output.message.content[0].reasoningContent.reasoningText.text);
});

check('InvokeModel', async () => {
  const body = JSON.stringify({anthropic_version: 'bedrock-2023-05-31', max_tokens: 100, messages: [{role: 'user', content: 'ping'}]});
  const claude = decode((await client.send(new InvokeModelCommand({modelId: modelId('echo'), contentType: 'application/json', body}))).body);
  assert.deepEqual([claude.content[0].text, claude.stop_reason], ['ping', 'end_turn']);
  const nova = decode((await client.send(new InvokeModelCommand({modelId: 'amazon.nova-lite-echo', body: JSON.stringify({messages: ask('', 'ping').messages})}))).body);
  assert.equal(nova.output.message.content[0].text, 'ping');
  const titan = decode((await client.send(new InvokeModelCommand({modelId: 'amazon.titan-text-echo', body: JSON.stringify({inputText: 'ping'})}))).body);
  assert.equal(titan.results[0].outputText, 'ping');
  const llama = decode((await client.send(new InvokeModelCommand({modelId: 'meta.llama3-echo', body: JSON.stringify({prompt: 'ping'})}))).body);
  assert.equal(llama.generation, 'ping');
});

check('InvokeModelWithResponseStream', async () => {
  const body = JSON.stringify({anthropic_version: 'bedrock-2023-05-31', max_tokens: 100, messages: [{role: 'user', content: 'one two three'}]});
  const {body: chunks} = await client.send(new InvokeModelWithResponseStreamCommand({modelId: modelId('echo'), contentType: 'application/json', body}));
  const events = (await all(chunks)).map(e => decode(e.chunk.bytes));
  assert.equal(events.map(e => e.delta?.text ?? '').join(''), 'one two three');
  assert.equal(events.at(-1).type, 'message_stop');
});

check('embeddings', async () => {
  const r = decode((await client.send(new InvokeModelCommand({modelId: 'amazon.titan-embed-text-v2:0', body: JSON.stringify({inputText: 'one', dimensions: 256, normalize: true})}))).body);
  assert.equal(r.embedding.length, 256);
  assert.ok(r.inputTextTokenCount > 0 && Math.abs(Math.hypot(...r.embedding) - 1) < 1e-3);
});

check('token counts', async () => {
  const {inputTokens} = await client.send(new CountTokensCommand({modelId: modelId('echo'), input: {converse: {messages: ask('', 'ping').messages}}}));
  assert.equal(inputTokens, (await converse('echo', 'ping')).usage.inputTokens);
});

check('every error has its class', async () => {
  for (const [word, kind] of [['400', ValidationException], ['403', AccessDeniedException], ['404', ResourceNotFoundException], ['429', ThrottlingException],
    ['500', InternalServerException], ['503', ServiceUnavailableException]]) {
    const e = await rejected(converse('refuses', `be-${word}`), kind);
    assert.equal(e.$metadata.httpStatusCode, Number(word));
    assert.ok(e.$metadata.requestId && e.message, word);
    assert.equal(e.$fault, Number(word) < 500 ? 'client' : 'server');
  }
  await rejected(client.send(new ConverseCommand({modelId: modelId('plain'), messages: []})), ValidationException);
});

check('retries throttling and errors, and gives up', async () => {
  const patient = new BedrockRuntimeClient({maxAttempts: 3});
  const r = await asks(3, () => patient.send(new ConverseCommand(ask('storm', 'ping'))));
  assert.equal(r.$metadata.attempts, 3);
  assert.equal((await asks(3, () => patient.send(new ConverseCommand(ask('recovers', 'one'))))).output.message.content[0].text, 'one');
  await asks(3, () => rejected(patient.send(new ConverseCommand(ask('refuses', 'be-503'))), ServiceUnavailableException));
  await asks(1, () => rejected(patient.send(new ConverseCommand(ask('refuses', 'be-400'))), ValidationException));
  patient.destroy();
});

check('a reset before the answer', async () => {
  // The SDK speaks HTTP/2, where it is the stream that is reset and not the connection, and does not ask again.
  const e = await rejected(converse('drops', 'go'), Error);
  assert.equal(e.code, 'ERR_HTTP2_STREAM_ERROR');
});

check('an error in the middle of a stream', async () => {
  const e = await rejected(stream('fails-midway', 'go'), BedrockRuntimeServiceException);
  assert.ok(e instanceof ServiceUnavailableException || e instanceof ModelStreamErrorException, e.name);
});

check('a stream that is cut, garbled or reset', async () => {
  // This SDK takes a stream that ends early for a whole one; what tells is the missing messageStop.
  assert.ok(!(await stream('cut', 'go')).some(e => e.messageStop));
  for (const of of ['cut-event', 'garbled', 'reset']) await rejected(stream(of, 'go'), Error);
});

check('time-outs', async () => {
  await leaves(() => rejected(client.send(new ConverseCommand(ask('silent', 'anybody?')), {abortSignal: AbortSignal.timeout(200)}), Error, /abort|time/i));
});

check('giving up on a stream leaves nothing open', async () => {
  await leaves(async () => {
    const controller = new AbortController();
    const {stream} = await client.send(new ConverseStreamCommand(ask('endless', 'go on')), {abortSignal: controller.signal});
    for await (const event of stream) {
      assert.ok(!event.messageStop);
      if (event.contentBlockDelta) controller.abort(); // to leave the loop is not enough for this SDK
    }
  });
});

await run();
client.destroy();
