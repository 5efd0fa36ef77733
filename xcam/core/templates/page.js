"use strict";
// Tables: a click on a column's title sorts, a second one the other way; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const button of table.querySelectorAll("thead button")) {
    const head = button.closest("th");
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = now === first ? other : first;
      for (const each of table.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const read = (row) => row.cells[head.cellIndex].dataset.value;
      const isText = head.dataset.kind === "text";
      const compare = (a, b) => {
        const [left, right] = [read(a), read(b)];
        if (left === "" || right === "") return (left === "") - (right === "");
        return sign * (isText ? left.localeCompare(right) : Number(left) - Number(right));
      };
      body.append(...[...body.rows].sort(compare));
    });
  }
}
// Legends: a click on a method sets it apart in the charts of its section.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const section = button.closest("section");
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pressed));
    for (const series of section.querySelectorAll(".series")) {
      if (series.dataset.series === button.dataset.series) series.classList.toggle("on", pressed);
    }
    const any = section.querySelector('.legend button[aria-pressed="true"]') !== null;
    section.classList.toggle("chosen", any);
  });
}
// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
