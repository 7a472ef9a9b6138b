// A framework of agents, which calls tools until the model is done.
import assert from 'node:assert/strict';
import {Agent, handoff, MaxTurnsExceededError, OpenAIChatCompletionsModel, run as start, setTracingDisabled, tool} from '@openai/agents';
import OpenAI from 'openai';
import {z} from 'zod';
import {all, asks, check, rejected, run} from './checks.js';

setTracingDisabled(true); // traces would go to the vendor itself

const client = new OpenAI();
// The framework's default speaks responses, and the other one chat completions.
const models = {'responses': of => `gpt-4o-${of}`, 'chat completions': of => new OpenAIChatCompletionsModel(client, `gpt-4o-${of}`)};
const weather = asked => tool({name: 'get_weather', description: 'Weather of a city', parameters: z.object({city: z.string()}), execute: async ({city}) => (asked.push(city), 'snow')});
const Report = z.object({city: z.string(), sky: z.enum(['clear', 'clouds'])});

// each is a check that has to hold with both.
function each(name, body) {
  check(name, async () => {
    for (const [form, model] of Object.entries(models)) await body(model).catch(e => { throw new Error(form, {cause: e}); });
  });
}

each('tool loop', async model => {
  const asked = [];
  const agent = new Agent({name: 'Forecaster', instructions: 'Ask the tool.', model: model('weather'), tools: [weather(asked)]});
  const r = await asks(2, () => start(agent, 'How is the weather?'));
  assert.match(r.finalOutput, /snow/);
  assert.deepEqual(asked, ['Oslo']);
  assert.deepEqual(r.newItems.map(i => i.type), ['tool_call_item', 'tool_call_output_item', 'message_output_item']);
  assert.equal(r.runContext.usage.requests, 2);
  assert.equal(r.runContext.usage.totalTokens, r.runContext.usage.inputTokens + r.runContext.usage.outputTokens);
});

each('tool loop, streamed', async model => {
  const asked = [];
  const agent = new Agent({name: 'Forecaster', model: model('weather'), tools: [weather(asked)]});
  const r = await start(agent, 'How is the weather?', {stream: true});
  const events = await all(r);
  await r.completed;
  assert.match(r.finalOutput, /snow/);
  assert.deepEqual(asked, ['Oslo']);
  const names = events.filter(e => e.type === 'run_item_stream_event').map(e => e.name);
  assert.deepEqual(names, ['tool_called', 'tool_output', 'message_output_created']);
  const text = events.filter(e => e.type === 'raw_model_stream_event' && e.data.type === 'output_text_delta').map(e => e.data.delta).join('');
  assert.equal(text, r.finalOutput);
});

each('structured output', async model => {
  const r = await start(new Agent({name: 'Reporter', model: model('plain'), outputType: Report}), 'Report.');
  assert.ok(Report.safeParse(r.finalOutput).success);
});

each('a loop without an end', async model => {
  const asked = [];
  const agent = new Agent({name: 'Forecaster', model: model('loop'), tools: [weather(asked)]});
  await asks(2, () => rejected(start(agent, 'How is the weather?', {maxTurns: 2}), MaxTurnsExceededError));
  assert.equal(asked.length, 2);
});

check('handing over to another agent', async () => {
  const second = new Agent({name: 'Second', model: 'gpt-4o-echo'});
  const first = new Agent({name: 'First', model: 'gpt-4o-handover', handoffs: [handoff(second)]});
  const r = await start(first, 'ping');
  assert.equal(r.lastAgent.name, 'Second');
  assert.ok(r.finalOutput);
});

await run();
