// OpenAI's own client.
import assert from 'node:assert/strict';
import OpenAI, {toFile} from 'openai';
import {zodFunction, zodResponseFormat, zodTextFormat} from 'openai/helpers/zod';
import {z} from 'zod';
import {all, asks, check, leaves, png, rejected, run, took, wav} from './checks.js';

const client = new OpenAI({maxRetries: 0});
const user = content => [{role: 'user', content}];
const Weather = z.object({city: z.string(), celsius: z.number(), sky: z.enum(['clear', 'clouds'])});
const weatherTool = {
  type: 'function', name: 'get_weather', description: 'Weather of a city', strict: true,
  parameters: {type: 'object', properties: {city: {type: 'string'}}, required: ['city'], additionalProperties: false},
};
const chatTool = {type: 'function', function: {name: weatherTool.name, description: weatherTool.description, parameters: weatherTool.parameters}};

check('chat', async () => {
  const {data, response, request_id} = await client.chat.completions.create({model: 'gpt-4o-echo', messages: user('ping')}).withResponse();
  assert.equal(data.choices[0].message.content, 'ping');
  assert.equal(data.choices[0].finish_reason, 'stop');
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.ok(request_id && request_id === response.headers.get('x-request-id'));
});

check('chat: several choices with log probabilities', async () => {
  const c = await client.chat.completions.create({model: 'gpt-4o', messages: user('Say something'), n: 3, logprobs: true, top_logprobs: 2});
  assert.deepEqual(c.choices.map(c => c.index), [0, 1, 2]);
  for (const {logprobs, message} of c.choices) {
    assert.equal(logprobs.content.map(t => t.token).join(''), message.content);
    assert.ok(logprobs.content.every(t => t.logprob <= 0 && t.top_logprobs.length === 2));
  }
});

check('chat: images and audio', async () => {
  const c = await client.chat.completions.create({model: 'gpt-4o', messages: user([
    {type: 'text', text: 'What is this?'},
    {type: 'image_url', image_url: {url: `data:image/png;base64,${png}`, detail: 'low'}},
    {type: 'input_audio', input_audio: {data: wav, format: 'wav'}},
  ])});
  assert.ok(c.choices[0].message.content);
});

check('chat: stream', async () => {
  const stream = client.chat.completions.stream({model: 'gpt-4o-echo', messages: user('one two three four'), stream_options: {include_usage: true}});
  const seen = {}, deltas = [];
  for (const event of ['connect', 'chunk', 'content.delta', 'content.done', 'message', 'finalChatCompletion', 'end']) {
    stream.on(event, () => { seen[event] = (seen[event] ?? 0) + 1; });
  }
  stream.on('content', delta => deltas.push(delta));
  const final = await stream.finalChatCompletion();
  assert.equal(deltas.join(''), 'one two three four');
  assert.equal(final.choices[0].message.content, 'one two three four');
  assert.ok(deltas.length > 2);
  const usage = await stream.totalUsage();
  assert.equal(usage.completion_tokens, deltas.length);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  await stream.done();
  for (const once of ['connect', 'content.done', 'message', 'finalChatCompletion', 'end']) assert.equal(seen[once], 1, once);
});

check('chat: tool calls, run by the SDK', async () => {
  const asked = [];
  const tools = [{type: 'function', function: {function: ({city}) => (asked.push(city), 'snow'), parse: JSON.parse, ...chatTool.function}}];
  const runner = client.chat.completions.runTools({model: 'gpt-4o-weather', messages: user('How is the weather?'), tools});
  assert.equal(await runner.finalContent(), 'It is snow.');
  assert.deepEqual(asked, ['Oslo']);
});

check('chat: tool calls in a stream', async () => {
  const stream = client.chat.completions.stream({model: 'gpt-4o-weather', messages: user('How is the weather?'), tools: [chatTool]});
  const done = [];
  stream.on('tool_calls.function.arguments.done', call => done.push(call));
  const message = await stream.finalMessage();
  assert.deepEqual(done.map(c => [c.name, JSON.parse(c.arguments)]), [['get_weather', {city: 'Oslo'}]]);
  assert.equal(message.tool_calls[0].function.arguments, done[0].arguments);
});

check('chat: structured output', async () => {
  const format = zodResponseFormat(Weather, 'weather');
  const c = await client.chat.completions.parse({model: 'gpt-4o', messages: user('Weather?'), response_format: format});
  assert.ok(Weather.safeParse(c.choices[0].message.parsed).success);
  const tool = zodFunction({name: 'report', parameters: Weather});
  const t = await client.chat.completions.parse({model: 'gpt-4o', messages: user('Weather?'), tools: [tool], tool_choice: 'required'});
  assert.ok(Weather.safeParse(t.choices[0].message.tool_calls[0].function.parsed_arguments).success);
});

check('chat: stored completions', async () => {
  const made = await client.chat.completions.create({model: 'gpt-4o-echo', messages: user('keep me'), store: true, metadata: {mine: 'yes'}});
  assert.equal((await client.chat.completions.retrieve(made.id)).choices[0].message.content, 'keep me');
  assert.ok((await all(client.chat.completions.list())).some(c => c.id === made.id));
  assert.equal((await all(client.chat.completions.messages.list(made.id)))[0].content, 'keep me');
  assert.ok((await client.chat.completions.delete(made.id)).deleted);
});

check('completions', async () => {
  const ask = {model: 'gpt-3.5-turbo-instruct-echo', prompt: 'one two three four five six', max_tokens: 4};
  const c = await client.completions.create(ask);
  assert.deepEqual([c.choices[0].text, c.choices[0].finish_reason, c.usage.completion_tokens], ['one two three four', 'length', 4]);
  const chunks = await all(await client.completions.create({...ask, stream: true}));
  assert.equal(chunks.map(c => c.choices[0].text).join(''), c.choices[0].text);
});

check('responses', async () => {
  const first = await client.responses.create({model: 'gpt-4o-echo', input: 'ping'});
  assert.equal(first.output_text, 'ping');
  assert.equal(first.usage.total_tokens, first.usage.input_tokens + first.usage.output_tokens);
  const second = await client.responses.create({model: 'gpt-4o-echo', input: 'pong', previous_response_id: first.id});
  assert.ok(second.usage.input_tokens > first.usage.input_tokens, 'the conversation before it counts');
  assert.equal((await client.responses.retrieve(second.id)).output_text, 'pong');
  const items = await all(client.responses.inputItems.list(second.id));
  assert.ok(JSON.stringify(items).includes('pong'));
  await client.responses.delete(second.id);
});

check('responses: stream', async () => {
  const stream = client.responses.stream({model: 'gpt-4o-echo', input: 'one two three four'});
  const events = await all(stream);
  assert.deepEqual([...new Set(events.map(e => e.type))], ['response.created', 'response.in_progress', 'response.output_item.added', 'response.content_part.added',
    'response.output_text.delta', 'response.output_text.done', 'response.content_part.done', 'response.output_item.done', 'response.completed']);
  assert.deepEqual(events.map(e => e.sequence_number), events.map((_, i) => i));
  assert.equal((await stream.finalResponse()).output_text, 'one two three four');
});

check('responses: tool calls', async () => {
  const input = user('How is the weather?'), tools = [weatherTool];
  const stream = client.responses.stream({model: 'gpt-4o-weather', input, tools});
  let streamed = '';
  stream.on('response.function_call_arguments.delta', e => { streamed += e.delta; });
  const asked = await stream.finalResponse();
  const call = asked.output.find(item => item.type === 'function_call');
  assert.equal(streamed, call.arguments);
  assert.deepEqual(JSON.parse(call.arguments), {city: 'Oslo'});
  const answered = await client.responses.create({model: 'gpt-4o-weather', tools,
    input: [...input, {type: 'function_call', call_id: call.call_id, name: call.name, arguments: call.arguments}, {type: 'function_call_output', call_id: call.call_id, output: 'snow'}]});
  assert.equal(answered.output_text, 'It is snow.');
});

check('responses: reasoning', async () => {
  const r = await client.responses.create({model: 'o4-thinker', input: 'Six times seven?', reasoning: {effort: 'low', summary: 'auto'}});
  assert.deepEqual(r.output.map(item => item.type), ['reasoning', 'message']);
  assert.ok(r.usage.output_tokens_details.reasoning_tokens > 0 && r.usage.input_tokens_details.cached_tokens === 4);
});

check('responses: structured output', async () => {
  const r = await client.responses.parse({model: 'gpt-4o', input: 'Weather?', text: {format: zodTextFormat(Weather, 'weather')}});
  assert.ok(Weather.safeParse(r.output_parsed).success);
});

check('responses: images and files', async () => {
  const r = await client.responses.create({model: 'gpt-4o', input: user([
    {type: 'input_text', text: 'What is this?'},
    {type: 'input_image', image_url: `data:image/png;base64,${png}`, detail: 'auto'},
    {type: 'input_file', filename: 'a.pdf', file_data: 'data:application/pdf;base64,JVBERi0xLjQK'},
  ])});
  assert.ok(r.output_text);
});

check('responses: in the background', async () => {
  let r = await client.responses.create({model: 'gpt-4o-echo', input: 'later', background: true});
  for (let i = 0; i < 100 && (r.status === 'queued' || r.status === 'in_progress'); i++) r = await client.responses.retrieve(r.id);
  assert.equal(r.status, 'completed');
  assert.equal(r.output_text, 'later');
  const endless = await client.responses.create({model: 'gpt-4o-endless', input: 'never mind', background: true});
  assert.equal((await client.responses.cancel(endless.id)).status, 'cancelled');
});

check('conversations', async () => {
  const conversation = await client.conversations.create({metadata: {of: 'mine'}, items: [{type: 'message', role: 'user', content: 'hello'}]});
  await client.responses.create({model: 'gpt-4o-echo', conversation: conversation.id, input: 'ping'});
  const items = await all(client.conversations.items.list(conversation.id, {order: 'asc'}));
  assert.ok(items.length >= 1 && items[0].role === 'user');
  assert.ok((await client.conversations.delete(conversation.id)).deleted);
});

check('embeddings', async () => {
  const ask = {model: 'text-embedding-3-small', input: ['one', 'two'], dimensions: 8};
  const packed = await client.embeddings.create(ask); // base64 on the wire, as the SDK asks for by itself
  const plain = await client.embeddings.create({...ask, encoding_format: 'float'});
  assert.equal(packed.data.length, 2);
  for (const [i, {embedding}] of packed.data.entries()) {
    assert.equal(embedding.length, 8);
    assert.deepEqual(Float32Array.from(plain.data[i].embedding), Float32Array.from(embedding));
    assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-4);
  }
});

check('models', async () => {
  const models = await all(client.models.list());
  assert.ok(models.length > 3);
  assert.equal((await client.models.retrieve(models[0].id)).id, models[0].id);
});

check('files, page by page', async () => {
  const made = [];
  for (const name of ['a', 'b', 'c']) made.push(await client.files.create({purpose: 'user_data', file: await toFile(Buffer.from(`text of ${name}`), `${name}.txt`)}));
  assert.equal(await (await client.files.content(made[1].id)).text(), 'text of b');
  const listed = await all(client.files.list({limit: 2}));
  assert.ok(made.every(f => listed.some(l => l.id === f.id && l.filename === f.filename && l.bytes === 9)));
  for (const f of made) assert.ok((await client.files.delete(f.id)).deleted);
});

check('uploads in parts', async () => {
  const upload = await client.uploads.create({bytes: 6, filename: 'two.txt', mime_type: 'text/plain', purpose: 'assistants'});
  const ids = [];
  for (const text of ['abc', 'def']) ids.push((await client.uploads.parts.create(upload.id, {data: await toFile(Buffer.from(text), 'part')})).id);
  const done = await client.uploads.complete(upload.id, {part_ids: ids});
  assert.equal(await (await client.files.content(done.file.id)).text(), 'abcdef');
});

check('batches', async () => {
  const line = id => JSON.stringify({custom_id: id, method: 'POST', url: '/v1/chat/completions', body: {model: 'gpt-4o-echo', messages: user(`I am ${id}`)}});
  const file = await client.files.create({purpose: 'batch', file: await toFile(Buffer.from(`${line('x')}\n${line('y')}\n`), 'batch.jsonl')});
  let batch = await client.batches.create({input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h'});
  for (let i = 0; i < 100 && batch.status !== 'completed'; i++) batch = await client.batches.retrieve(batch.id);
  assert.equal(batch.status, 'completed');
  const out = (await (await client.files.content(batch.output_file_id)).text()).trim().split('\n').map(JSON.parse);
  assert.deepEqual(out.map(l => [l.custom_id, l.response.body.choices[0].message.content]), [['x', 'I am x'], ['y', 'I am y']]);
  assert.ok((await all(client.batches.list())).some(b => b.id === batch.id));
});

check('vector stores', async () => {
  const store = await client.vectorStores.create({name: 'shelf'});
  const file = await client.vectorStores.files.uploadAndPoll(store.id, await toFile(Buffer.from('A book'), 'book.txt'), {pollIntervalMs: 10});
  assert.equal(file.status, 'completed');
  assert.ok((await all(client.vectorStores.files.list(store.id))).some(f => f.id === file.id));
  await client.vectorStores.delete(store.id);
});

check('fine-tuning', async () => {
  const file = await client.files.create({purpose: 'fine-tune', file: await toFile(Buffer.from('{"messages":[]}\n'), 'train.jsonl')});
  const job = await client.fineTuning.jobs.create({model: 'gpt-4o-mini-2024-07-18', training_file: file.id});
  assert.equal((await client.fineTuning.jobs.retrieve(job.id)).training_file, file.id);
  assert.ok((await all(client.fineTuning.jobs.list())).some(j => j.id === job.id));
});

check('moderations, images, speech, transcriptions', async () => {
  const {results} = await client.moderations.create({model: 'omni-moderation-latest', input: 'kind words'});
  assert.equal(typeof results[0].flagged, 'boolean');
  const image = await client.images.generate({model: 'gpt-image-1', prompt: 'a dot', size: '1024x1024'});
  assert.ok(Buffer.from(image.data[0].b64_json, 'base64').length > 0);
  const speech = await client.audio.speech.create({model: 'gpt-4o-mini-tts', voice: 'alloy', input: 'hello'});
  assert.ok((await speech.arrayBuffer()).byteLength > 0);
  const heard = await client.audio.transcriptions.create({model: 'whisper-1', file: await toFile(Buffer.from(wav, 'base64'), 'a.wav')});
  assert.equal(typeof heard.text, 'string');
});

check('every error has its class', async () => {
  for (const [word, kind, status] of [['400', OpenAI.BadRequestError], ['401', OpenAI.AuthenticationError], ['403', OpenAI.PermissionDeniedError], ['404', OpenAI.NotFoundError],
    ['409', OpenAI.ConflictError], ['422', OpenAI.UnprocessableEntityError], ['429', OpenAI.RateLimitError], ['quota', OpenAI.RateLimitError, 429],
    ['500', OpenAI.InternalServerError], ['503', OpenAI.InternalServerError]]) {
    const e = await rejected(client.chat.completions.create({model: 'gpt-4o-refuses', messages: user(`be-${word}`)}), kind);
    assert.equal(e.status, status ?? Number(word));
    assert.ok(e.requestID && e.error.message && e.type, word);
    if (word === '429') assert.equal(e.headers.get('retry-after'), '7');
    if (word === 'quota') assert.equal(e.code, 'insufficient_quota');
  }
  const e = await rejected(client.chat.completions.create({model: 'gpt-4o', messages: []}), OpenAI.BadRequestError);
  assert.equal(e.param, 'messages');
});

check('retries as long as it is told to wait', async () => {
  const patient = client.withOptions({maxRetries: 2});
  const c = await asks(3, () => took(4_000, () => patient.chat.completions.create({model: 'gpt-4o-storm', messages: user('ping')})));
  assert.ok(c.choices[0].message.content);
});

check('retries errors and resets, and gives up', async () => {
  const c = await asks(3, () => client.withOptions({maxRetries: 2}).chat.completions.create({model: 'gpt-4o-recovers', messages: user('one')}));
  assert.equal(c.choices[0].message.content, 'one');
  await asks(2, () => client.withOptions({maxRetries: 1}).chat.completions.create({model: 'gpt-4o-drops', messages: user('two')}));
  await asks(2, () => rejected(client.withOptions({maxRetries: 1}).chat.completions.create({model: 'gpt-4o-recovers', messages: user('three')}), OpenAI.InternalServerError));
  await asks(1, () => rejected(client.withOptions({maxRetries: 2}).chat.completions.create({model: 'gpt-4o-refuses', messages: user('be-400')}), OpenAI.BadRequestError));
});

check('an error in the middle of a stream', async () => {
  const e = await rejected(client.chat.completions.stream({model: 'gpt-4o-fails-midway', messages: user('go')}).done(), OpenAI.APIError);
  assert.ok(/overloaded/i.test(e.message), e.message);
  const r = await rejected(all(await client.responses.create({model: 'gpt-4o-fails-midway', input: 'go', stream: true})), OpenAI.APIError);
  assert.ok(/overloaded/i.test(r.message), r.message);
});

check('a stream that is cut, garbled or reset', async () => {
  const chat = model => client.chat.completions.stream({model, messages: user('go')}).finalChatCompletion();
  await rejected(chat('gpt-4o-cut'), OpenAI.OpenAIError, /finish_reason/);
  await rejected(chat('gpt-4o-cut-event'), Error);
  await rejected(chat('gpt-4o-garbled'), Error, /JSON/);
  await rejected(chat('gpt-4o-reset'), Error);
  // Of responses the SDK takes a stream that ends early for a whole one; what tells is the status.
  assert.equal((await client.responses.stream({model: 'gpt-4o-cut', input: 'go'}).finalResponse()).status, 'in_progress');
});

check('time-outs', async () => {
  await leaves(() => rejected(client.chat.completions.create({model: 'gpt-4o-silent', messages: user('anybody?')}, {timeout: 200}), OpenAI.APIConnectionTimeoutError));
});

check('giving up on a stream leaves nothing open', async () => {
  await leaves(async () => {
    const stream = client.chat.completions.stream({model: 'gpt-4o-endless', messages: user('go on')});
    stream.on('content', () => stream.abort());
    await rejected(stream.done(), OpenAI.APIUserAbortError);
  });
  await leaves(async () => {
    for await (const event of await client.responses.create({model: 'gpt-4o-endless', input: 'go on', stream: true})) {
      if (event.type === 'response.output_text.delta') break;
    }
  });
});

await run();
