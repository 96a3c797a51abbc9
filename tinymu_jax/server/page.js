// Keeps the picture and the timeline in step with the player, and saves results as a file.
(() => {
  const player = () => document.querySelector("#recording audio");
  const picture = () => document.querySelector("#track .picture");

  const draw = () => {
    const audio = player(), view = picture();
    if (!view) return;
    const seconds = Number(view.dataset.seconds), now = audio ? audio.currentTime : 0;
    view.querySelector(".playhead").style.left = `${Math.min(100, (100 * now) / seconds)}%`;
    view.parentElement.classList.toggle("mute-player", Boolean(audio && audio.error));
    for (const part of document.querySelectorAll("[data-end]")) {
      const from = Number(part.dataset.from ?? part.dataset.start);
      const current = from <= now && now < Number(part.dataset.end);
      // The list scrolls along, but not the page.
      const list = part.closest(".windows");
      if (list && current && !part.classList.contains("now"))
        list.scrollTop = part.parentElement.offsetTop - list.clientHeight / 2;
      part.classList.toggle("now", current);
    }
  };

  const seek = seconds => {
    const audio = player();
    if (!audio) return;
    audio.currentTime = seconds;
    draw();
  };

  const follow = () => {
    draw();
    const audio = player();
    if (audio && !audio.paused) requestAnimationFrame(follow);
  };

  // Events of media do not bubble, but can be captured.
  for (const name of ["timeupdate", "seeked", "loadedmetadata", "emptied", "error"])
    document.addEventListener(name, draw, true);
  document.addEventListener("play", follow, true);

  document.addEventListener("click", event => {
    const part = event.target.closest("[data-start]");
    if (part) return seek(Number(part.dataset.start));
    const view = event.target.closest("#track .picture");
    if (!view) return;
    const box = view.getBoundingClientRect();
    seek((Number(view.dataset.seconds) * (event.clientX - box.left)) / box.width);
  });

  window.drawPlayhead = draw;
  window.saveResults = text => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    link.download = JSON.parse(text).file.replace(/\.[^.]*$/, "") + ".json";
    link.click();
    URL.revokeObjectURL(link.href);
  };
})();
