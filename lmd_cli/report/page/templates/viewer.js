// The bird's-eye view: the parts that are switched on, added up, one sample at a time.
"use strict";
(() => {
  const holder = document.getElementById("viewer-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const { ground, rows, columns, parts, limits } = data; // on the ground, or pixels
  const [left, right, back, front] = data.extent;
  const [half, tail, nose] = data.ego; // of the vehicle that carries the sensors
  const cells = rows * columns;
  const find = (id) => document.getElementById(id);
  const [slider, bev, readout] = [find("sample"), find("bev"), find("readout")];
  const switches = parts.map((_, i) => find(`part-${i}`));
  const minis = parts.map((_, i) => find(`mini-${i}`));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const MARGIN = { left: 38, bottom: 34, top: 6, right: 8 };
  // Brown to teal, readable without colour vision; the middle is the page's own ground. What speaks
  // for is further from the ground than anything against, so that grey tells them apart too.
  const LIGHT = { none: [255, 255, 255], plus: [0, 51, 46], minus: [201, 137, 58], prob: [29, 35, 41],
    ink: "#1d2329", soft: "#59636e", box: "#1d2329", under: "#ffffff", cross: "#b0005d", ego: "#1d2329" };
  const DARK = { none: [20, 24, 28], plus: [140, 240, 225], minus: [150, 102, 44], prob: [240, 243, 246],
    ink: "#e4e8ec", soft: "#a3adb8", box: "#e4e8ec", under: "#14181c", cross: "#ff7ac0", ego: "#e4e8ec" };
  const palette = () => (dark.matches && !paper.matches ? DARK : LIGHT);
  let cursor = { row: Math.floor(rows / 2), column: Math.floor(columns / 2) };
  let current = null;
  let chosen = null; // the object that a list's button has marked

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const decode = (sample) => {
    const raw = bytes(sample.maps);
    const view = new DataView(raw.buffer);
    const maps = parts.map((_, p) => {
      const map = new Float32Array(cells);
      for (let i = 0; i < cells; i++) map[i] = view.getInt16(2 * (p * cells + i), true) * sample.scales[p];
      return map;
    });
    return { sample, maps, truth: bytes(sample.truth) };
  };

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const style = () => document.querySelector('input[name="look"]:checked').value;
  const colour = (value, look, ink) => {
    const [towards, strength] =
      look === "probability" ? [ink.prob, sigmoid(value)]
        : value >= 0 ? [ink.plus, value / limits[look]]
          : [ink.minus, look === "positive" ? 0 : -value / limits[look]];
    const t = Math.min(strength, 1);
    return ink.none.map((from, k) => from + (towards[k] - from) * t);
  };

  const raster = (values, look, ink) => {
    const image = new ImageData(columns, rows);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const at = 4 * ((rows - 1 - row) * columns + column); // forward is up
        const [r, g, b] = colour(values[row * columns + column], look, ink);
        image.data.set([r, g, b, 255], at);
      }
    }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [columns, rows];
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };

  const together = () => {
    const sum = new Float32Array(cells);
    current.maps.forEach((map, p) => {
      if (switches[p].checked) for (let i = 0; i < cells; i++) sum[i] += map[i];
    });
    return sum;
  };

  const fit = (canvas, height) => {
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth || 300;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height(width) * ratio)];
    canvas.style.height = `${height(width)}px`;
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.imageSmoothingEnabled = false;
    return pen;
  };

  const frame = (width) => {
    const across = width - MARGIN.left - MARGIN.right;
    const along = (across * (front - back)) / (right - left);
    const x = (metres) => MARGIN.left + ((metres - left) / (right - left)) * across;
    const y = (metres) => MARGIN.top + ((front - metres) / (front - back)) * along;
    return { across, along, x, y };
  };

  const drawAxes = (pen, at, ink) => {
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = ink.soft;
    pen.strokeStyle = ink.soft;
    pen.lineWidth = 1;
    pen.strokeRect(at.x(left), at.y(front), at.across, at.along);
    const long = Math.max(columns, rows) / 5;
    const every = !ground ? Math.max(1, Math.round(long / 10) * 10) : right - left > 60 ? 20 : 10;
    pen.textAlign = "center";
    for (let m = Math.ceil(left / every) * every; m <= right; m += every) pen.fillText(m, at.x(m), at.y(back) + 14);
    pen.fillText(ground ? "metres to the right" : "column", at.x((left + right) / 2), at.y(back) + 29);
    pen.textAlign = "right";
    for (let m = Math.ceil(back / every) * every; m <= front; m += every) pen.fillText(m, at.x(left) - 5, at.y(ground ? m : front - m) + 4);
    pen.save();
    pen.translate(10, at.y((front + back) / 2));
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(ground ? "metres ahead" : "row", 0, 0);
    pen.restore();
  };

  const polygon = (pen, at, points) => {
    pen.beginPath();
    points.forEach(([x, y], i) => (i ? pen.lineTo(at.x(x), at.y(y)) : pen.moveTo(at.x(x), at.y(y))));
    pen.closePath();
  };

  const drawScene = (pen, at, ink) => {
    if (!ground) return;
    pen.save();
    pen.beginPath();
    pen.rect(at.x(left), at.y(front), at.across, at.along);
    pen.clip();
    pen.strokeStyle = ink.box;
    pen.lineWidth = 1.3;
    if (find("outlines").checked) for (const box of current.sample.outlines) { polygon(pen, at, box); pen.stroke(); }
    pen.fillStyle = ink.ego;
    polygon(pen, at, [[-half, tail], [0, nose + 0.5 * (nose - tail)], [half, tail]]);
    pen.fill();
    pen.restore();
  };

  const centre = (spot) => [
    left + ((spot.column + 0.5) / columns) * (right - left),
    back + ((spot.row + 0.5) / rows) * (front - back),
  ];

  const cellOf = ([x, y]) => {
    const inside = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
    return {
      row: inside(((y - back) / (front - back)) * rows, rows),
      column: inside(((x - left) / (right - left)) * columns, columns),
    };
  };

  const drawCursor = (pen, at, ink) => {
    const [x, y] = centre(cursor);
    pen.strokeStyle = ink.cross;
    pen.lineWidth = 1.6;
    pen.beginPath();
    pen.arc(at.x(x), at.y(y), 7, 0, 2 * Math.PI);
    pen.moveTo(at.x(x) - 13, at.y(y)); pen.lineTo(at.x(x) - 4, at.y(y));
    pen.moveTo(at.x(x) + 4, at.y(y)); pen.lineTo(at.x(x) + 13, at.y(y));
    pen.moveTo(at.x(x), at.y(y) - 13); pen.lineTo(at.x(x), at.y(y) - 4);
    pen.moveTo(at.x(x), at.y(y) + 4); pen.lineTo(at.x(x), at.y(y) + 13);
    pen.stroke();
  };

  // The parts' places that an object is marked with, see the fieldset.
  const marksOf = (object) => {
    const mode = document.querySelector('input[name="marks"]:checked').value;
    if (!object.inside || mode === "none") return [];
    if (mode === "removal") return object.removal;
    return parts.flatMap((part, p) => (part.name === object.parts ? [p] : []));
  };

  const drawMark = (pen, [x, y], annotated, ink) => {
    for (const [colour, width] of [[ink.under, 4], [ink.box, 1.8]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      if (annotated) pen.arc(x, y, 8, 0, 2 * Math.PI);
      else { pen.moveTo(x - 5, y - 5); pen.lineTo(x + 5, y + 5); pen.moveTo(x - 5, y + 5); pen.lineTo(x + 5, y - 5); }
      pen.stroke();
    }
  };

  const drawMarks = (pen, at, ink) => {
    if (!ground) return;
    pen.font = "bold 11px system-ui, sans-serif";
    pen.textAlign = "left";
    for (const object of current.sample.objects) {
      const marks = marksOf(object);
      const spot = [at.x(object.place[0]), at.y(object.place[1])];
      if (!marks.length && object !== chosen) continue;
      drawMark(pen, spot, object.annotated, ink);
      const letters = marks.map((p) => parts[p].name[0].toUpperCase()).join("");
      pen.lineWidth = 3;
      pen.strokeStyle = ink.under;
      pen.strokeText(letters, spot[0] + 10, spot[1] - 5);
      pen.fillStyle = ink.box;
      pen.fillText(letters, spot[0] + 10, spot[1] - 5);
    }
  };

  const drawBev = () => {
    const ink = palette();
    const height = (width) => frame(width).along + MARGIN.top + MARGIN.bottom;
    const pen = fit(bev, height);
    const at = frame(bev.clientWidth || 300);
    pen.drawImage(raster(together(), style(), ink), at.x(left), at.y(front), at.across, at.along);
    drawAxes(pen, at, ink);
    drawScene(pen, at, ink);
    drawMarks(pen, at, ink);
    drawCursor(pen, at, ink);
  };

  const drawMinis = () => {
    const ink = palette();
    minis.forEach((mini, p) => {
      const pen = fit(mini, (width) => (width * (front - back)) / (right - left));
      pen.drawImage(raster(current.maps[p], style(), ink), 0, 0, mini.clientWidth, parseFloat(mini.style.height));
    });
  };

  // Three digits that count, however small.
  const short = (value) => `${Number(value.toPrecision(3))}`;

  const drawScale = () => {
    const [pen, ink, look] = [fit(find("scale"), () => 13), palette(), style()];
    const width = find("scale").clientWidth || 100;
    const ends = [look === "signed" ? -limits.signed : 0, limits[look]];
    for (let i = 0; i < width; i++) {
      // The probability's scale is linear in the probability, not in the logit.
      const t = (i + 0.5) / width;
      const value = look === "probability" ? Math.log(t / (1 - t)) : ends[0] + t * (ends[1] - ends[0]);
      pen.fillStyle = `rgb(${colour(value, look, ink).map(Math.round).join()})`;
      pen.fillRect(i, 0, 1.5, 13);
    }
    const named = look === "probability" ? ["0", "1"] : ends.map(short);
    [find("scale-low").textContent, find("scale-high").textContent] = named;
    find("scale-unit").textContent = look === "probability" ? "probability" : `${ground ? "logits" : "output"}, the same scale for all maps and samples`;
  };

  const signed = (value) => `${value < 0 ? "\u2212" : "+"}${short(Math.abs(value))}`;
  const place = (value, ahead, behind) => `${Math.abs(value).toFixed(1)} m ${value < 0 ? behind : ahead}`;
  const tell = () => {
    const i = cursor.row * columns + cursor.column;
    const [x, y] = centre(cursor);
    const shown = parts.map((part, p) => (switches[p].checked ? `${part.name} ${signed(current.maps[p][i])}` : ""));
    const sum = together()[i];
    const terms = shown.filter(Boolean).join(", ") || "no part switched on";
    const truth = current.truth[i >> 3] & (128 >> (i & 7)) ? "A vehicle is annotated here." : "No vehicle is annotated here.";
    readout.textContent = ground
      ? `${place(y, "ahead", "behind")}, ${place(x, "to the right", "to the left")}: ` +
        `${terms}; together ${signed(sum)} (probability ${(100 * sigmoid(sum)).toFixed(0)} %). ${truth}`
      : `Row ${rows - 1 - cursor.row}, column ${cursor.column}: ${terms}; together ${signed(sum)}.`;
  };

  const draw = () => { drawBev(); drawMinis(); drawScale(); tell(); };

  const showImages = () => {
    const usual = ["front left", "front", "front right", "back left", "back", "back right"];
    const rank = ({ camera }) => (usual.includes(camera) ? usual.indexOf(camera) : usual.length);
    find("cameras").replaceChildren(...cameraImages.figures(current.sample, chosen)
      .sort((a, b) => rank(a) - rank(b))
      .map(({ figure }) => figure));
  };

  const select = (index, object = null) => {
    slider.value = index;
    const sample = data.samples[index];
    chosen = object === null ? null : sample.objects[object];
    if (chosen) cursor = cellOf(chosen.place);
    current = decode(sample);
    const said = sample.description ? ` \u201c${sample.description}\u201d` : "";
    const named = [sample.scene, sample.moment].filter(Boolean).join(", ") + said;
    const where = named ? `${named}, ` : "";
    find("sample-name").textContent = `${index + 1} of ${data.samples.length}: ${where}sample ${sample.token}`;
    slider.setAttribute("aria-valuetext", `${where}sample ${index + 1} of ${data.samples.length}`);
    showImages();
    draw();
  };
  const move = (by) => select(Math.max(0, Math.min(data.samples.length - 1, Number(slider.value) + by)));

  slider.addEventListener("input", () => select(Number(slider.value)));
  find("before").addEventListener("click", () => move(-1));
  find("after").addEventListener("click", () => move(1));
  for (const input of document.querySelectorAll("#viewer input:not([type=range])")) input.addEventListener("change", draw);
  bev.addEventListener("click", (event) => {
    const box = bev.getBoundingClientRect();
    const at = frame(bev.clientWidth);
    const column = Math.floor(((event.clientX - box.left - MARGIN.left) / at.across) * columns);
    const row = rows - 1 - Math.floor(((event.clientY - box.top - MARGIN.top) / at.along) * rows);
    if (column < 0 || column >= columns || row < 0 || row >= rows) return;
    cursor = { row, column };
    draw();
  });
  bev.addEventListener("keydown", (event) => {
    const ways = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
    const way = ways[event.key];
    const number = Number(event.key);
    if (number >= 1 && number <= parts.length) switches[number - 1].click();
    if (!way) return;
    event.preventDefault();
    const far = event.shiftKey ? 5 : 1;
    const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));
    cursor = { row: clamp(cursor.row + far * way[0], rows), column: clamp(cursor.column + far * way[1], columns) };
    draw();
  });
  for (const button of document.querySelectorAll("button[data-sample]")) {
    const object = button.dataset.object === undefined ? null : Number(button.dataset.object);
    const sample = data.samples[Number(button.dataset.sample)];
    const frame = object === null ? null : sample.objects[object]?.frame;
    if (frame) {
      const picture = document.createElement("canvas");
      button.prepend(picture);
      cameraImages.cut(picture, sample.images[frame[0]].src, frame);
    }
    button.addEventListener("click", () => {
      select(Number(button.dataset.sample), object);
      find("viewer").scrollIntoView();
      slider.focus({ preventScroll: true });
    });
  }
  dark.addEventListener("change", draw);
  paper.addEventListener("change", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (bev.clientWidth === width) return;
    width = bev.clientWidth;
    draw();
  }).observe(bev);
  find("viewer").hidden = false;
  select(0);
})();
