// Words for screen readers at the end of an answer. Its tokens are not announced: each would interrupt the last one.

const LONGEST = 600; // characters; nobody can stop an announcement, and a long answer is better read by its headings
const ENDINGS = { done: "Answer complete", cancelled: "Answer stopped" };

/** What has ended and how, and the answer if it is short, else its beginning. */
export function describeEnd({ state, answer }) {
  const ending = ENDINGS[state] ?? "The answer failed";
  const text = spokenText(answer.body);
  if (!text) return `${ending}.`;
  if (text.length <= LONGEST) return `${ending}: ${text}`;
  const space = text.lastIndexOf(" ", LONGEST); // some languages have none
  const beginning = text.slice(0, space > LONGEST / 2 ? space : LONGEST);
  return `${ending}. It begins: ${beginning} … The rest is under the last heading "Answer".`;
}

/** The text of an answer, with a mention instead of each block of code, and the TeX of formulas. */
function spokenText(body) {
  const copy = body.cloneNode(true);
  for (const block of copy.querySelectorAll(".code")) {
    const language = block.querySelector(".bar span").textContent;
    block.replaceWith(` (code${language ? ` in ${language}` : ""}) `);
  }
  for (const formula of copy.querySelectorAll(".formula[data-source]")) formula.replaceWith(formula.dataset.source);
  for (const block of copy.querySelectorAll("p, li, tr, h1, h2, h3, h4, h5, h6, summary")) block.append("\n");
  for (const cell of copy.querySelectorAll("td, th")) cell.append(" ");
  return copy.textContent.replace(/\s+/g, " ").trim();
}
