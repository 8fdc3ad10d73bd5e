// What a mark says: shown beside the pointer, or beside the mark that the arrow keys are on.
"use strict";
(() => {
  const tip = document.getElementById("tip");

  const show = (mark, x, y) => {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    const above = y - height - 12;
    tip.style.left = `${Math.max(4, Math.min(x - width / 2, innerWidth - width - 4))}px`;
    tip.style.top = `${above < 4 ? y + 18 : above}px`;
  };

  const leave = (chart) => {
    tip.hidden = true;
    for (const mark of chart.querySelectorAll(".here")) mark.classList.remove("here");
  };

  const step = (chart, way) => {
    const marks = [...chart.querySelectorAll(".mark")];
    const now = marks.findIndex((mark) => mark.classList.contains("here"));
    leave(chart);
    if (!marks.length) return;
    const first = way > 0 ? 0 : marks.length - 1;
    const mark = marks[now < 0 ? first : (now + way + marks.length) % marks.length];
    mark.classList.add("here");
    const box = mark.getBoundingClientRect();
    show(mark, box.left + box.width / 2, box.top);
  };

  for (const chart of document.querySelectorAll("svg.chart")) {
    chart.addEventListener("pointermove", (event) => {
      const mark = event.target.closest(".mark");
      if (mark) show(mark, event.clientX, event.clientY);
      else tip.hidden = true;
    });
    chart.addEventListener("pointerleave", () => leave(chart));
    chart.addEventListener("blur", () => leave(chart));
    chart.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") leave(chart);
      if (!way) return;
      event.preventDefault();
      step(chart, way);
    });
  }

  // Groups of charts of which one is shown: a radio button names it.
  for (const radio of document.querySelectorAll("input[data-shows]")) {
    radio.addEventListener("change", () => {
      const group = document.getElementById(radio.dataset.of);
      for (const part of group.children) part.hidden = part.dataset.name !== radio.dataset.shows;
    });
  }
})();
