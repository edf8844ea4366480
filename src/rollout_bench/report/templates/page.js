// Folded parts are opened for printing, and when a link of the contents leads to them.
const unfold = (each) => { each.open = true };
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(unfold));
addEventListener("hashchange", () => document.querySelectorAll(`${location.hash.split("=")[0]} > details`).forEach(unfold));
