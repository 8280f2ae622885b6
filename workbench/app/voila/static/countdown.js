const left = document.querySelector("[data-countdown]");
let seconds = Number(left.dataset.countdown);
setInterval(() => {
  seconds -= 1;
  left.textContent = Math.max(seconds, 0);
  if (seconds <= 0) location.reload();
}, 1000);
