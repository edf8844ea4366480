// Folded parts are opened for printing, and when a link of the contents leads to them.
const unfold = (each) => { each.open = true };
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(unfold));
addEventListener("hashchange", () => {
  const part = location.hash.split("=")[0];
  document.querySelectorAll(`details${part}, ${part} > details`).forEach(unfold);
});
// Each command has a button that copies it.
document.querySelectorAll(".command").forEach((each) => {
  const button = each.appendChild(document.createElement("button"));
  button.textContent = "Copy";
  button.onclick = async () => {
    const code = each.querySelector("code");
    try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied" }
    catch { getSelection().selectAllChildren(code); button.textContent = "Press Ctrl+C" }
  };
});
// A finger opens what a pointer sees as a hint: the definition of a column, or the meaning of a flag.
const note = document.body.appendChild(document.createElement("p"));
note.className = "note";
note.hidden = true;
addEventListener("click", ({ target }) => {
  if (!matchMedia("(pointer: coarse)").matches) return;
  const cell = target.closest("tr:not(.flags) > td");
  const head = cell && cell.closest("table").tHead?.rows[0].cells[cell.cellIndex];
  note.textContent = target.closest("[title]")?.title || head?.title || "";
  note.hidden = !note.textContent;
});
