// Camera images as canvases: whole with a frame, larger in a dialog, or cut out around an object.
"use strict";
const cameraImages = (() => {
  const loaded = new Map();
  const load = (src) => {
    if (!loaded.has(src)) {
      const image = new Image();
      image.src = src;
      loaded.set(src, image.decode().then(() => image));
    }
    return loaded.get(src);
  };

  const frameOf = (pen, frame, scale) => {
    const [, left, top, right, bottom] = frame;
    for (const [colour, width] of [["#000000", 4], ["#ffd92f", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.strokeRect(left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
    }
  };

  // The whole image, ``width`` pixels wide.
  const whole = async (canvas, src, frame, width) => {
    const image = await load(src);
    const scale = width / image.naturalWidth;
    [canvas.width, canvas.height] = [width, Math.round(image.naturalHeight * scale)];
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (frame) frameOf(pen, frame, scale);
  };

  // What is around a frame, 16 : 9.
  const cut = async (canvas, src, frame) => {
    const image = await load(src);
    const [, left, top, right, bottom] = frame;
    const width = Math.max(24, 1.6 * (right - left), 1.6 * (bottom - top) * 16 / 9);
    const height = width * 9 / 16;
    [canvas.width, canvas.height] = [112, 63];
    const pen = canvas.getContext("2d");
    const [x, y] = [(left + right - width) / 2, (top + bottom - height) / 2];
    pen.drawImage(image, x, y, width, height, 0, 0, canvas.width, canvas.height);
    const scale = canvas.width / width;
    frameOf(pen, [0, left - x, top - y, right - x, bottom - y], scale);
  };

  const dialog = document.getElementById("zoom");
  const zoom = (name, src, frame) => {
    const canvas = document.getElementById("zoom-image");
    canvas.setAttribute("aria-label", name);
    dialog.showModal();
    whole(canvas, src, frame, Math.round(Math.min(1600, 0.94 * innerWidth) * (devicePixelRatio || 1)));
  };

  // One figure for each image of a sample; ``chosen`` is the object whose frame is drawn.
  const figures = (sample, chosen) => sample.images.map(({ camera, src }, number) => {
    const frame = chosen?.frame?.[0] === number ? chosen.frame : null;
    const [figure, button, canvas, caption] = ["figure", "button", "canvas", "figcaption"].map((tag) => document.createElement(tag));
    button.type = "button";
    button.className = "image";
    button.setAttribute("aria-label", `camera ${camera}${frame ? `, with ${chosen.name}` : ""}: larger`);
    button.addEventListener("click", () => zoom(`camera ${camera}`, src, frame));
    caption.textContent = camera;
    button.append(canvas);
    figure.append(button, caption);
    whole(canvas, src, frame, 480);
    return { camera, figure };
  });

  return { figures, cut };
})();
