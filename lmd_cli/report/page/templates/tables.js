// Tables sorted by the column whose header is pressed: numbers by value, empty cells last.
"use strict";
(() => {
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;

  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };

  const sort = (table, header) => {
    const column = header.cellIndex;
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const empty = (row) => key(row, column) === "";
    rows.sort((a, b) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      return (up ? 1 : -1) * compare(key(a, column), key(b, column));
    });
    body.append(...rows);
  };

  // A field to search all cells, and a choice for each column of few different texts.
  const FEW = 12;
  const filter = (table) => {
    const rows = [...table.tBodies[0].rows];
    const controls = document.createElement("div");
    const said = document.createElement("output");
    controls.className = "filters no-print";
    const control = (name, tag) => {
      const [label, input] = [document.createElement("label"), document.createElement(tag)];
      label.append(`${name} `, input);
      controls.append(label);
      input.addEventListener("input", apply);
      return input;
    };
    const wanted = [];
    const apply = () => {
      const text = search.value.toLowerCase();
      for (const row of rows) {
        const fits = wanted.every(([column, choice]) => !choice.value || row.cells[column].textContent === choice.value.slice(1));
        row.hidden = !fits || !row.textContent.toLowerCase().includes(text);
      }
      said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    const search = control("Search", "input");
    search.type = "search";
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const texts = [...new Set(rows.map((row) => row.cells[column].textContent))].sort();
      if (column === 0 || texts.length < 2 || texts.length > FEW || rows.some((row) => row.cells[column].classList.contains("number"))) return;
      const choice = control(header.textContent, "select");
      choice.append(new Option("any", ""), ...texts.map((text) => new Option(text || "(nothing)", `=${text}`)));
      wanted.push([column, choice]);
    });
    controls.append(said);
    table.closest(".scroll").before(controls);
    apply();
  };
  for (const table of document.querySelectorAll("table.filterable")) filter(table);

  // On paper every number is there. Chromium draws controls in a table's head on the first page
  // only: headers are buttons on the screen alone.
  const closed = [];
  const pressed = [];
  addEventListener("beforeprint", () => {
    closed.push(...document.querySelectorAll("details:not([open])"));
    for (const part of closed) part.open = true;
    for (const button of document.querySelectorAll("thead button")) {
      const plain = document.createElement("span");
      plain.append(...button.childNodes);
      button.replaceWith(plain);
      pressed.push([button, plain]);
    }
  });
  addEventListener("afterprint", () => {
    for (const part of closed.splice(0)) part.open = false;
    for (const [button, plain] of pressed.splice(0)) {
      button.append(...plain.childNodes);
      plain.replaceWith(button);
    }
  });

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, header));
    }
  }
})();
