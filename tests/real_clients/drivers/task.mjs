// The task of a driver, its tools, and its outcome: the same for all libraries in JavaScript.

import { appendFileSync, readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';

export const TASK = JSON.parse(process.argv[2]);
export const SCHEMA = {
  title: 'answer',
  type: 'object',
  properties: { n: { type: 'integer' } },
  required: ['n'],
  additionalProperties: false,
};

export function append({ line }) {
  appendFileSync('steps', `${line}\n`);
  return 'appended';
}

export const read = (path) => readFileSync(path).toString('base64');

export const finish = (outcome) => console.log(JSON.stringify(outcome));

/** Stay, so that only the cancelled call can have closed the connection. */
export async function cancelled() {
  console.log('cancelled');
  await text(process.stdin);
  finish({});
}

/** Run the function of the task's kind. An exception of the library is the outcome's error. */
export async function run(kinds) {
  try {
    await kinds[TASK.kind]();
  } catch (error) {
    if (TASK.kind !== 'error') throw error;
    finish({ error: `${error.name}: ${error.message}` });
  }
}
