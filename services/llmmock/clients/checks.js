// What the programs share. A program names its checks with check() and ends with run(), which prints one line of JSON for each:
// {"check":"…","ok":true,"ms":12}, and what went wrong when it is not. clients_test.go reads the lines.
import assert from 'node:assert/strict';
import {inspect} from 'node:util';

// longest is how many ms one check may take.
const longest = 30_000;

const checks = [];

// check is something that has to hold. body throws when it does not.
export function check(name, body) {
  checks.push({name, body});
}

// run runs the checks in their order. Those that fail do not keep the others from running.
export async function run() {
  for (const {name, body} of checks) {
    const began = performance.now();
    let error, timer;
    try {
      const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`not done after ${longest} ms`)), longest); });
      await Promise.race([body(), late]);
    } catch (e) {
      error = inspect(e, {depth: 3, breakLength: 160});
    } finally {
      clearTimeout(timer);
    }
    console.log(JSON.stringify({check: name, ok: error === undefined, ms: Math.round(performance.now() - began), error}));
  }
}

// metric is the sum of a metric of the mock over the labels that fit.
async function metric(name, labels = '') {
  const text = await (await fetch(process.env.MOCK_METRICS)).text();
  return text.split('\n').filter(line => line.startsWith(name) && line.includes(labels)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

// eventually waits until read answers want. The mock tells of what it noticed, and it notices a client that leaves when the system does.
async function eventually(read, want) {
  let got;
  for (const deadline = Date.now() + 5_000; Date.now() < deadline;) {
    if ((got = await read()) === want) return;
    await new Promise(done => setTimeout(done, 10));
  }
  assert.equal(got, want);
}

// leaves runs a body that gives up on one answer, and sees to it that the mock noticed and has nothing open.
export async function leaves(body) {
  const left = () => metric('edgehold_mock_ends_total', 'end="left"');
  const before = await left();
  await body();
  await eventually(left, before + 1);
  await idle();
}

// idle waits until the mock has nothing open; it has counted everything then.
const idle = () => eventually(() => metric('edgehold_mock_exchanges_open'), 0);

// asks runs a body, which must be what sends the first request, and sees to it that the mock answered so many.
export async function asks(requests, body) {
  const seen = () => metric('edgehold_mock_requests_total');
  await idle();
  const before = await seen();
  const result = await body();
  await eventually(seen, before + requests);
  return result;
}

// took runs a body that must take at least so many ms.
export async function took(ms, body) {
  const began = performance.now();
  const result = await body();
  const did = performance.now() - began;
  assert.ok(did >= ms, `took ${Math.round(did)} ms; the mock said to wait ${ms} ms`);
  return result;
}

// all is everything that comes.
export async function all(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

// png is an image of one pixel, and wav a tenth of a second of silence; both in base64.
export const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
export const wav = (() => {
  const samples = 1600, b = Buffer.alloc(44 + samples);
  b.write('RIFF', 0), b.writeUInt32LE(36 + samples, 4), b.write('WAVEfmt ', 8), b.writeUInt32LE(16, 16), b.writeUInt16LE(1, 20), b.writeUInt16LE(1, 22);
  b.writeUInt32LE(16_000, 24), b.writeUInt32LE(16_000, 28), b.writeUInt16LE(1, 32), b.writeUInt16LE(8, 34), b.write('data', 36), b.writeUInt32LE(samples, 40);
  return b.fill(128, 44).toString('base64');
})();

// rejected is the error that a promise has to end with: of this class, and with a message that says so.
export async function rejected(promise, kind, says = /./) {
  const error = await promise.then(value => assert.fail(`no ${kind.name} came, but ${JSON.stringify(value)?.slice(0, 200)}`), e => e);
  assert.ok(error instanceof kind, `${error?.constructor?.name} in place of ${kind.name}: ${error?.stack}`);
  assert.match(error.message, says);
  return error;
}
