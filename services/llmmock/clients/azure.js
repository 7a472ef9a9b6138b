// OpenAI's own client for Azure.
import assert from 'node:assert/strict';
import OpenAI, {AzureOpenAI, toFile} from 'openai';
import {check, rejected, run} from './checks.js';

const user = content => [{role: 'user', content}];

check('deployments', async () => {
  const azure = new AzureOpenAI({apiVersion: '2024-10-21', maxRetries: 0});
  const c = await azure.chat.completions.create({model: 'my-gpt-echo', messages: user('ping')});
  assert.equal(c.choices[0].message.content, 'ping');
  assert.ok(c.prompt_filter_results, 'Azure says what its filter found');
  assert.equal(await azure.chat.completions.stream({model: 'my-gpt-echo', messages: user('one two')}).finalContent(), 'one two');
  assert.equal((await azure.embeddings.create({model: 'my-embedding', input: 'one', dimensions: 4})).data[0].embedding.length, 4);
  const e = await rejected(azure.chat.completions.create({model: 'my-gpt-refuses', messages: user('be-429')}), OpenAI.RateLimitError);
  assert.equal(e.code, '429');
});

check('files and batches', async () => {
  const azure = new AzureOpenAI({apiVersion: '2024-10-21', maxRetries: 0});
  const line = {custom_id: 'x', method: 'POST', url: '/chat/completions', body: {model: 'my-gpt-echo', messages: user('I am x')}};
  const file = await azure.files.create({purpose: 'batch', file: await toFile(Buffer.from(JSON.stringify(line)), 'batch.jsonl')});
  let batch = await azure.batches.create({input_file_id: file.id, endpoint: '/chat/completions', completion_window: '24h'});
  for (let i = 0; i < 100 && batch.status !== 'completed'; i++) batch = await azure.batches.retrieve(batch.id);
  assert.equal(batch.status, 'completed');
  const out = JSON.parse(await (await azure.files.content(batch.output_file_id)).text());
  assert.deepEqual([out.custom_id, out.response.body.choices[0].message.content], ['x', 'I am x']);
});

check('images and speech', async () => {
  const deployed = deployment => new AzureOpenAI({apiVersion: '2024-10-21', deployment, maxRetries: 0});
  assert.equal((await deployed('my-images').images.generate({prompt: 'a dot'})).data.length, 1);
  assert.ok((await (await deployed('my-voice').audio.speech.create({model: 'my-voice', voice: 'alloy', input: 'hello'})).arrayBuffer()).byteLength > 0);
});

check('the paths of OpenAI', async () => {
  const azure = new OpenAI({baseURL: `${process.env.AZURE_OPENAI_ENDPOINT}/openai/v1/`, apiKey: process.env.AZURE_OPENAI_API_KEY, defaultHeaders: {'api-key': process.env.AZURE_OPENAI_API_KEY}, maxRetries: 0});
  assert.equal((await azure.responses.create({model: 'my-gpt-echo', input: 'ping'})).output_text, 'ping');
  assert.equal((await azure.responses.stream({model: 'my-gpt-echo', input: 'ping pong'}).finalResponse()).output_text, 'ping pong');
});

await run();
