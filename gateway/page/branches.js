// Branches of a chat. A question that is edited or asked again goes out with the conversation before it, and replaces
// the turns after that. Its metadata names the turn that it follows, so that a later visit shows the same.

const AFTER = "page.after"; // id of the turn before; "": the request begins the chat
const COUNT = "page.messages"; // how many messages are new

/** Fields of a request that goes on after the turn with the id `after`. `before`: the turns up to that one. */
export const branchFields = (after, before, messages) => ({
  history: "given",
  metadata: { [AFTER]: after, [COUNT]: String(messages.length) },
  messages: [...before.flatMap(said), ...messages],
});

/** The id of the turn that a stored request of this page follows; null: those before it, or it is not known. */
export const parentOf = (metadata) => metadata?.[AFTER] ?? null;

/** The messages of a stored request that are new. The gateway lists all after the last answer. */
export const newMessages = (messages, metadata) =>
  Number(metadata?.[COUNT]) > 0 ? messages.slice(-Number(metadata[COUNT])) : messages;

/** Finds what the model sees. `path`: these turns. `isWhole`: they are the whole conversation, as far as is known.
 *  `replaced`: a turn → the turns that it has replaced, the oldest first. `branched`: turns with a conversation that
 *  is not on the page. */
export function arrange(turns) {
  const replaced = new Map();
  const branched = new Set();
  let [path, isWhole] = [[], true];
  for (const turn of turns.filter(({ isRefused }) => !isRefused)) {
    const { after } = turn;
    const at = after === null ? -1 : path.findIndex(({ id }) => id === after);
    if (after === "" || at >= 0) {
      const gone = path.splice(at + 1);
      replaced.set(turn, gone.flatMap((old) => [...(replaced.get(old) ?? []), old]));
      isWhole ||= after === "";
    } else if (turn.isBranch) {
      if (path.length > 0) branched.add(turn);
      [path, isWhole] = [[], false];
    }
    // Turns whose retention has ended are listed no more.
    isWhole &&= turn.isComplete && !(turn.isAdded && path.length === 0);
    path.push(turn);
  }
  return { path, isWhole, replaced, branched };
}

/** The messages that a turn adds to the conversation, as the gateway counts them: a turn that failed without output
 *  adds none. */
function said(turn) {
  const answer = answerIn(turn);
  if (answer) return [...turn.messages, answer];
  return turn.state === "error" ? [] : turn.messages;
}

function answerIn({ answer, calls, stored }) {
  const content = stored ? (stored.text ?? "") + (stored.refusal ?? "") : answer.text + answer.refusal.text.data;
  const toolCalls = stored ? (stored.tool_calls ?? []) : calls;
  if (!content && toolCalls.length === 0) return null;
  return { role: "assistant", ...(content && { content }), ...(toolCalls.length > 0 && { tool_calls: toolCalls }) };
}
