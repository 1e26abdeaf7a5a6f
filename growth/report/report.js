"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `sort by ${head.textContent}`);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return [(cell.dataset.value ?? cell.textContent).trim(), row];
      });
      const isEmpty = (text) => text === "" || text === "–";
      keyed.sort(([a], [b]) => {
        if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b); // last, in both directions
        const numbers = [Number(a), Number(b)];
        const order = numbers.some(Number.isNaN)
          ? a.localeCompare(b, "en", { numeric: true })
          : numbers[0] - numbers[1];
        return direction * order;
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
