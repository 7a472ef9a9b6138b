// The AI SDK, with its packages for four vendors.
import assert from 'node:assert/strict';
import {createAmazonBedrock} from '@ai-sdk/amazon-bedrock';
import {createAnthropic} from '@ai-sdk/anthropic';
import {createGoogle} from '@ai-sdk/google';
import {createOpenAI} from '@ai-sdk/openai';
import {APICallError, embedMany, generateText, isStepCount, Output, RetryError, streamText, tool, ToolLoopAgent} from 'ai';
import {z} from 'zod';
import {all, asks, check, leaves, png, rejected, run, took} from './checks.js';

const openai = createOpenAI();
const google = createGoogle({baseURL: new URL('/v1beta', process.env.OPENAI_BASE_URL).href}); // the one that no variable tells
const anthropic = createAnthropic();
const bedrock = createAmazonBedrock();
const models = {
  'OpenAI responses': of => openai(`gpt-4o-${of}`),
  'OpenAI chat': of => openai.chat(`gpt-4o-${of}`),
  'Anthropic': of => anthropic(`claude-haiku-4-5-${of}`),
  'Google': of => google(`gemini-2.5-flash-${of}`),
  'Bedrock': of => bedrock(`eu.anthropic.claude-haiku-4-5-${of}`),
};
// Each vendor's package has an APICallError of its own, which isInstance knows.
const CallError = {name: 'APICallError', [Symbol.hasInstance]: APICallError.isInstance};
const Weather = z.object({city: z.string(), celsius: z.number(), sky: z.enum(['clear', 'clouds'])});
const weather = asked => tool({description: 'Weather of a city', inputSchema: z.object({city: z.string()}), execute: ({city}) => (asked.push(city), 'snow')});

// each is a check that has to hold with every one of the models.
function each(name, body) {
  check(name, async () => {
    for (const [vendor, model] of Object.entries(models)) await body(model).catch(e => { throw new Error(vendor, {cause: e}); });
  });
}

each('text', async model => {
  const r = await generateText({model: model('echo'), instructions: 'Be brief.', prompt: 'ping'});
  assert.equal(r.text, 'ping');
  assert.equal(r.finishReason, 'stop');
  assert.ok(r.usage.inputTokens > 0 && r.usage.outputTokens > 0);
  assert.equal(r.usage.totalTokens, r.usage.inputTokens + r.usage.outputTokens);
});

each('images', async model => {
  const r = await generateText({model: model('plain'), messages: [{role: 'user', content: [{type: 'text', text: 'What is this?'},
    {type: 'file', data: Buffer.from(png, 'base64'), mediaType: 'image/png'}]}]});
  assert.ok(r.text);
});

each('stream', async model => {
  const r = streamText({model: model('echo'), prompt: 'one two three four'});
  const parts = await all(r.fullStream);
  assert.equal(parts.filter(p => p.type === 'text-delta').map(p => p.text).join(''), 'one two three four');
  for (const type of ['start', 'start-step', 'text-start', 'text-delta', 'text-end', 'finish-step', 'finish']) assert.ok(parts.some(p => p.type === type), type);
  assert.equal(await r.finishReason, 'stop');
  assert.ok((await r.usage).outputTokens > 0);
});

each('tool loop', async model => {
  const asked = [];
  const r = await generateText({model: model('weather'), prompt: 'How is the weather?', tools: {get_weather: weather(asked)}, stopWhen: isStepCount(5)});
  assert.match(r.text, /snow/);
  assert.equal(r.steps.length, 2);
  const streamed = streamText({model: model('weather'), prompt: 'And now?', tools: {get_weather: weather(asked)}, stopWhen: isStepCount(5)});
  assert.match(await streamed.text, /snow/);
  assert.deepEqual(asked, ['Oslo', 'Oslo']);
});

each('structured output', async model => {
  const r = await generateText({model: model('plain'), prompt: 'Weather?', output: Output.object({schema: Weather})});
  assert.ok(Weather.safeParse(r.output).success);
});

each('errors', async model => {
  const e = await rejected(generateText({model: model('refuses'), prompt: 'be-400', maxRetries: 2}), CallError);
  assert.deepEqual([e.statusCode, e.isRetryable], [400, false]);
  const busy = await rejected(generateText({model: model('refuses'), prompt: 'be-503', maxRetries: 0}), CallError);
  assert.deepEqual([busy.statusCode, busy.isRetryable], [503, true]);
});

each('an error in the middle of a stream', async model => {
  const parts = await all(streamText({model: model('fails-midway'), prompt: 'go', onError() {}}).fullStream);
  assert.ok(parts.some(p => p.type === 'text-delta') && parts.some(p => p.type === 'error'), parts.map(p => p.type).join(' '));
});

each('a stream that is cut or reset', async model => {
  // The one is told by the missing reason, the other is an error.
  const parts = await all(streamText({model: model('cut'), prompt: 'go', onError() {}}).fullStream);
  assert.ok(!parts.some(p => p.type === 'finish' && p.finishReason === 'stop'));
  await rejected(all(streamText({model: model('reset'), prompt: 'go', onError() {}}).fullStream), Error);
});

each('giving up on a stream leaves nothing open', async model => {
  await leaves(async () => {
    const controller = new AbortController();
    const r = streamText({model: model('endless'), prompt: 'go on', abortSignal: controller.signal, onError() {}});
    const parts = [];
    for await (const part of r.fullStream) {
      parts.push(part.type);
      if (part.type === 'text-delta') controller.abort();
    }
    assert.equal(parts.at(-1), 'abort');
  });
});

check('retries as long as it is told to wait', async () => {
  const storms = Object.values(models).map(model => () => took(4_000, () => generateText({model: model('storm'), prompt: 'ping', maxRetries: 2})));
  for (const r of await asks(3 * storms.length, () => Promise.all(storms.map(begin => begin())))) assert.ok(r.text);
  await asks(2, () => rejected(generateText({model: openai('gpt-4o-storm'), prompt: 'pong', maxRetries: 1}), RetryError));
});

check('reasoning', async () => {
  for (const [model, providerOptions] of [
    [openai('o4-thinker'), {openai: {reasoningSummary: 'auto'}}],
    [anthropic('claude-haiku-4-5-thinker'), {anthropic: {thinking: {type: 'enabled', budgetTokens: 1024}}}],
    [google('gemini-2.5-flash-thinker'), {google: {thinkingConfig: {includeThoughts: true}}}],
    [bedrock('eu.anthropic.claude-haiku-4-5-thinker'), {bedrock: {reasoningConfig: {type: 'enabled', budgetTokens: 1024}}}],
  ]) {
    const r = await generateText({model, prompt: 'Six times seven?', providerOptions});
    assert.match(r.reasoningText ?? '', /Six times seven/, model.provider);
    assert.equal(r.text, 'It is 42.');
  }
});

check('embeddings', async () => {
  for (const model of [openai.embedding('text-embedding-3-small'), google.embedding('gemini-embedding-001'), bedrock.embedding('amazon.titan-embed-text-v2:0')]) {
    const {embeddings} = await embedMany({model, values: ['one', 'two']});
    assert.equal(embeddings.length, 2);
    assert.notDeepEqual(embeddings[0], embeddings[1]);
  }
});

check('an agent with a limit of rounds', async () => {
  const asked = [];
  const agent = new ToolLoopAgent({model: openai('gpt-4o-loop'), tools: {get_weather: weather(asked)}, stopWhen: isStepCount(2)});
  const r = await agent.generate({prompt: 'How is the weather?'});
  assert.deepEqual([r.steps.length, asked.length, r.finishReason], [2, 2, 'tool-calls']);
});

await run();
