// Place of a turn in its chat: turns that were replaced are hidden until the user wants to see them.

import { element, smallButton } from "./dom.js";

export class Placement {
  constructor(turn) {
    this.turn = turn;
    this.note = element("p", "branch quiet");
    this.note.hidden = true;
    this.shown = "";
    turn.prepend(this.note);
  }

  /** `replaced`: the elements of the turns that this one replaces. `isBranched`: it came with another conversation. A
   *  placement that is shown already keeps what the user has unfolded. */
  show({ replaced, isReplaced, isBranched, canEdit }) {
    this.turn.classList.toggle("editable", canEdit);
    const placement = [replaced.length, isReplaced, isBranched].join();
    if (placement === this.shown) return;
    this.shown = placement;
    this.turn.hidden = isReplaced;
    this.turn.classList.toggle("replaced", isReplaced);
    this.note.hidden = isReplaced || (replaced.length === 0 && !isBranched);
    if (isBranched) this.note.textContent = "Another branch: the model does not see what is above.";
    else if (replaced.length > 0) this.note.replaceChildren("This replaces an earlier version. ", toggleOf(replaced));
  }
}

function toggleOf(replaced) {
  const toggle = smallButton("Show");
  toggle.setAttribute("aria-expanded", "false");
  toggle.addEventListener("click", () => {
    const isShown = toggle.getAttribute("aria-expanded") === "false";
    toggle.setAttribute("aria-expanded", String(isShown));
    toggle.textContent = isShown ? "Hide" : "Show";
    for (const turn of replaced) turn.hidden = !isShown;
  });
  return toggle;
}
