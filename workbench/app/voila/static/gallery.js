// The gallery's filter: words and family; the address keeps both, so that a filtered gallery can be shared.
(() => {
  const words = document.getElementById("find-words");
  const family = document.getElementById("find-family");
  const count = document.getElementById("find-count");
  const cards = [...document.querySelectorAll(".card")];

  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const inFamily = !family.value || card.dataset.family === family.value;
      card.hidden = !(inFamily && wanted.every((word) => card.dataset.words.includes(word)));
      shown += !card.hidden;
    }
    count.textContent = shown === 1 ? "1 card" : `${shown} cards`;
    const address = new URL(location.href);
    for (const [key, field] of [["find", words], ["family", family]]) {
      if (field.value) address.searchParams.set(key, field.value);
      else address.searchParams.delete(key);
    }
    if (address.href !== location.href) history.replaceState(null, "", address);
  };

  const asked = new URLSearchParams(location.search);
  words.value = asked.get("find") ?? "";
  if ([...family.options].some((option) => option.value === asked.get("family"))) family.value = asked.get("family");
  words.addEventListener("input", filter);
  family.addEventListener("change", filter);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== words && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      words.focus();
    }
    if (event.key === "Escape" && document.activeElement === words) { words.value = ""; filter(); }
  });
  document.querySelector(".find").hidden = false;
  filter();
})();
