// Keeps the picture and the timeline in step with the player, and saves results as a file.
(() => {
  // A notebook may have several recordings, the page has one.
  const scope = node => node?.closest?.("[data-track]") ?? document;
  const player = node => scope(node).querySelector("audio");
  const picture = node => scope(node).querySelector(".picture");

  const draw = node => {
    const audio = player(node), view = picture(node);
    if (!view) return;
    const seconds = Number(view.dataset.seconds), now = audio ? audio.currentTime : 0;
    view.querySelector(".playhead").style.left = `${Math.min(100, (100 * now) / seconds)}%`;
    view.parentElement.classList.toggle("mute-player", Boolean(audio && audio.error));
    for (const part of scope(node).querySelectorAll("[data-end]")) {
      const from = Number(part.dataset.from);
      const current = from <= now && now < Number(part.dataset.end);
      // The list scrolls along, but not the page.
      const list = part.closest(".windows");
      if (list && current && !part.classList.contains("now"))
        list.scrollTop = part.parentElement.offsetTop - list.clientHeight / 2;
      part.classList.toggle("now", current);
    }
  };

  const seek = (node, seconds) => {
    const audio = player(node);
    if (!audio) return;
    audio.currentTime = seconds;
    draw(node);
  };

  const follow = node => {
    draw(node);
    const audio = player(node);
    if (audio && !audio.paused) requestAnimationFrame(() => follow(node));
  };

  // Events of media do not bubble, but can be captured.
  for (const name of ["timeupdate", "seeked", "loadedmetadata", "emptied", "error"])
    document.addEventListener(name, event => draw(event.target), true);
  document.addEventListener("play", event => follow(event.target), true);

  document.addEventListener("click", event => {
    const part = event.target.closest("[data-start]");
    if (part) return seek(part, Number(part.dataset.start));
    const view = event.target.closest(".picture");
    if (!view) return;
    const box = view.getBoundingClientRect();
    seek(view, (Number(view.dataset.seconds) * (event.clientX - box.left)) / box.width);
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
