// Anthropic's own client.
import assert from 'node:assert/strict';
import Anthropic, {toFile} from '@anthropic-ai/sdk';
import {zodOutputFormat} from '@anthropic-ai/sdk/helpers/zod';
import {betaZodTool} from '@anthropic-ai/sdk/helpers/beta/zod';
import {z} from 'zod';
import {all, asks, check, leaves, png, rejected, run, took} from './checks.js';

const client = new Anthropic({maxRetries: 0});
const model = of => `claude-haiku-4-5-${of}`;
const ask = (of, content, more) => ({model: model(of), max_tokens: 1000, messages: [{role: 'user', content}], ...more});
const Weather = z.object({city: z.string(), celsius: z.number(), sky: z.enum(['clear', 'clouds'])});
const tool = {name: 'get_weather', description: 'Weather of a city', input_schema: {type: 'object', properties: {city: {type: 'string'}}, required: ['city']}};

check('messages', async () => {
  const {data, response, request_id} = await client.messages.create(ask('echo', 'ping')).withResponse();
  assert.deepEqual(data.content.map(c => [c.type, c.text]), [['text', 'ping']]);
  assert.equal(data.stop_reason, 'end_turn');
  assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0);
  assert.ok(request_id && request_id === response.headers.get('request-id'));
});

check('messages: where they end', async () => {
  const short = await client.messages.create(ask('echo', 'one two three four', {max_tokens: 2}));
  assert.equal(short.stop_reason, 'max_tokens');
  assert.equal(short.usage.output_tokens, 2);
  const stopped = await client.messages.create(ask('echo', 'one two three four', {stop_sequences: ['three']}));
  assert.deepEqual([stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text], ['stop_sequence', 'three', 'one two ']);
});

check('messages: images and documents', async () => {
  const m = await client.messages.create(ask('plain', [
    {type: 'image', source: {type: 'base64', media_type: 'image/png', data: png}},
    {type: 'document', source: {type: 'text', media_type: 'text/plain', data: 'A book.'}, title: 'Book', citations: {enabled: true}},
    {type: 'document', source: {type: 'base64', media_type: 'application/pdf', data: 'JVBERi0xLjQK'}},
    {type: 'text', text: 'What are these?'},
  ]));
  assert.ok(m.content[0].text);
});

check('messages: stream', async () => {
  const stream = client.messages.stream(ask('echo', 'one two three four'));
  const events = [], texts = [], ended = [];
  stream.on('streamEvent', e => events.push(e.type)).on('text', t => texts.push(t));
  for (const e of ['connect', 'contentBlock', 'message', 'finalMessage', 'end']) stream.on(e, () => ended.push(e));
  const final = await stream.finalMessage();
  await stream.done();
  assert.equal(texts.join(''), 'one two three four');
  assert.equal(final.content[0].text, 'one two three four');
  assert.equal(final.stop_reason, 'end_turn');
  assert.deepEqual([...new Set(events)], ['message_start', 'content_block_start', 'content_block_delta', 'content_block_stop', 'message_delta', 'message_stop']);
  assert.deepEqual(ended, ['connect', 'contentBlock', 'message', 'finalMessage', 'end']);
  assert.equal(final.usage.output_tokens, texts.length);
});

check('messages: thinking and the cache', async () => {
  const stream = client.messages.stream(ask('thinker', 'Six times seven?', {max_tokens: 4000, thinking: {type: 'enabled', budget_tokens: 1024}}));
  let thought = '', signature = '';
  stream.on('thinking', t => { thought += t; }).on('signature', s => { signature = s; });
  const m = await stream.finalMessage();
  assert.deepEqual(m.content.map(c => c.type), ['thinking', 'text']);
  assert.equal(m.content[0].thinking, thought);
  assert.equal(m.content[0].signature, signature);
  assert.ok(thought && signature);
  assert.equal(m.usage.cache_read_input_tokens, 4);
  const next = await client.messages.create({...ask('thinker', ''), messages: [{role: 'user', content: 'Six times seven?'}, {role: 'assistant', content: m.content}, {role: 'user', content: 'Sure?'}]});
  assert.equal(next.content.at(-1).text, 'It is 42.');
});

check('messages: tool calls', async () => {
  const question = ask('weather', 'How is the weather?', {tools: [tool]});
  const stream = client.messages.stream(question);
  let json = '';
  stream.on('inputJson', part => { json += part; });
  const asked = await stream.finalMessage();
  assert.equal(asked.stop_reason, 'tool_use');
  const use = asked.content.find(c => c.type === 'tool_use');
  assert.deepEqual([use.name, use.input], ['get_weather', {city: 'Oslo'}]);
  assert.deepEqual(JSON.parse(json), use.input);
  const answered = await client.messages.create({...question, messages: [...question.messages, {role: 'assistant', content: asked.content},
    {role: 'user', content: [{type: 'tool_result', tool_use_id: use.id, content: 'snow'}]}]});
  assert.equal(answered.content[0].text, 'It is snow.');
});

check('messages: tool calls, run by the SDK', async () => {
  for (const stream of [false, true]) {
    const asked = [];
    const weather = betaZodTool({name: 'get_weather', description: tool.description, inputSchema: z.object({city: z.string()}), run: ({city}) => (asked.push(city), 'snow')});
    const final = await client.beta.messages.toolRunner({...ask('weather', 'How is the weather?'), tools: [weather], stream}).runUntilDone();
    assert.equal(final.content[0].text, 'It is snow.');
    assert.deepEqual(asked, ['Oslo']);
  }
});

check('messages: threads that the server holds', async () => {
  const thread = client.beta.messages.thread({model: model('echo'), max_tokens: 1000, system: 'Be brief.'});
  const first = await thread.send({role: 'user', content: 'ping'});
  const second = await thread.stream({role: 'user', content: 'pong pong'}).finalMessage();
  assert.equal(second.content[0].text, 'pong pong');
  assert.ok(second.usage.input_tokens > first.usage.input_tokens, 'the conversation before it counts');
  assert.equal(thread.previousMessageId, second.id);
  const lost = client.beta.messages.create({...ask('echo', 'ping'), thread: {type: 'continue', previous_message_id: 'msg_01none'}, betas: ['message-threads-2026-08-12']});
  assert.equal((await rejected(lost, Anthropic.NotFoundError)).error.error.details.error_code, 'thread_not_found');
});

check('messages: structured output', async () => {
  const m = await client.messages.parse(ask('plain', 'Weather?', {output_config: {format: zodOutputFormat(Weather)}}));
  assert.ok(Weather.safeParse(m.parsed_output).success);
  const forced = await client.messages.create(ask('plain', 'Weather?', {tools: [tool], tool_choice: {type: 'tool', name: 'get_weather'}}));
  assert.equal(typeof forced.content.find(c => c.type === 'tool_use').input.city, 'string');
});

check('token counts', async () => {
  const {input_tokens} = await client.messages.countTokens({model: model('echo'), messages: [{role: 'user', content: 'ping'}], system: 'Be brief.'});
  const {usage} = await client.messages.create(ask('echo', 'ping', {system: 'Be brief.'}));
  assert.equal(input_tokens, usage.input_tokens);
});

check('models, page by page', async () => {
  const models = await all(client.models.list({limit: 2}));
  assert.ok(models.length > 2 && new Set(models.map(m => m.id)).size === models.length);
  assert.equal((await client.models.retrieve(models[0].id)).id, models[0].id);
});

check('batches', async () => {
  const made = await client.messages.batches.create({requests: ['x', 'y'].map(id => ({custom_id: id, params: ask('echo', `I am ${id}`)}))});
  let batch = made;
  for (let i = 0; i < 100 && batch.processing_status !== 'ended'; i++) batch = await client.messages.batches.retrieve(made.id);
  assert.equal(batch.processing_status, 'ended');
  const results = await all(await client.messages.batches.results(made.id));
  assert.deepEqual(results.map(r => [r.custom_id, r.result.type, r.result.message.content[0].text]), [['x', 'succeeded', 'I am x'], ['y', 'succeeded', 'I am y']]);
  assert.ok((await all(client.messages.batches.list())).some(b => b.id === made.id));
  assert.equal((await client.messages.batches.delete(made.id)).type, 'message_batch_deleted');
});

check('files', async () => {
  const file = await client.beta.files.upload({file: await toFile(Buffer.from('A book.'), 'book.txt', {type: 'text/plain'})});
  assert.equal((await client.beta.files.retrieveMetadata(file.id)).filename, 'book.txt');
  const m = await client.beta.messages.create({...ask('plain', [{type: 'document', source: {type: 'file', file_id: file.id}}, {type: 'text', text: 'What is it?'}]), betas: ['files-api-2025-04-14']});
  assert.ok(m.content[0].text);
  assert.ok((await all(client.beta.files.list())).some(f => f.id === file.id));
  assert.equal((await client.beta.files.delete(file.id)).id, file.id);
});

check('every error has its class', async () => {
  for (const [word, kind, type, status] of [['400', Anthropic.BadRequestError, 'invalid_request_error'], ['401', Anthropic.AuthenticationError, 'authentication_error'],
    ['403', Anthropic.PermissionDeniedError, 'permission_error'], ['404', Anthropic.NotFoundError, 'not_found_error'], ['413', Anthropic.APIError, 'request_too_large'],
    ['429', Anthropic.RateLimitError, 'rate_limit_error'], ['500', Anthropic.InternalServerError, 'api_error'], ['529', Anthropic.InternalServerError, 'overloaded_error']]) {
    const e = await rejected(client.messages.create(ask('refuses', `be-${word}`)), kind);
    assert.equal(e.status, status ?? Number(word));
    assert.deepEqual([e.error.type, e.error.error.type, e.type], ['error', type, type]);
    assert.ok(e.requestID && e.error.error.message && e.error.request_id === e.requestID, word);
    if (word === '429') assert.equal(e.headers.get('retry-after'), '7');
  }
  const e = await rejected(client.messages.create({...ask('plain', ''), messages: []}), Anthropic.BadRequestError);
  assert.match(e.message, /messages/);
});

check('retries as long as it is told to wait', async () => {
  const m = await asks(3, () => took(4_000, () => client.withOptions({maxRetries: 2}).messages.create(ask('storm', 'ping'))));
  assert.ok(m.content[0].text);
});

check('retries errors and resets, and gives up', async () => {
  const m = await asks(3, () => client.withOptions({maxRetries: 2}).messages.create(ask('recovers', 'one')));
  assert.equal(m.content[0].text, 'one');
  await asks(2, () => client.withOptions({maxRetries: 1}).messages.create(ask('drops', 'two')));
  await asks(2, () => rejected(client.withOptions({maxRetries: 1}).messages.create(ask('recovers', 'three')), Anthropic.InternalServerError));
  await asks(1, () => rejected(client.withOptions({maxRetries: 2}).messages.create(ask('refuses', 'be-400')), Anthropic.BadRequestError));
});

check('an error in the middle of a stream', async () => {
  const e = await rejected(client.messages.stream(ask('fails-midway', 'go')).finalMessage(), Anthropic.APIError, /overloaded/i);
  assert.equal(e.type, 'overloaded_error');
});

check('a stream that is cut, garbled or reset', async () => {
  for (const of of ['cut', 'cut-event', 'garbled', 'reset']) {
    const e = await rejected(client.messages.stream(ask(of, 'go')).finalMessage(), Error);
    assert.ok(e instanceof Anthropic.AnthropicError || of === 'garbled', `${of}: ${e}`);
  }
});

check('time-outs', async () => {
  await leaves(() => rejected(client.messages.create(ask('silent', 'anybody?'), {timeout: 200}), Anthropic.APIConnectionTimeoutError));
});

check('giving up on a stream leaves nothing open', async () => {
  await leaves(async () => {
    const stream = client.messages.stream(ask('endless', 'go on'));
    stream.on('text', () => stream.abort());
    await rejected(stream.done(), Anthropic.APIUserAbortError);
  });
  await leaves(async () => {
    for await (const event of await client.messages.create(ask('endless', 'go on', {stream: true}))) {
      if (event.type === 'content_block_delta') break;
    }
  });
});

await run();
