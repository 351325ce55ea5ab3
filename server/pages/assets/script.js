// Nothing here is needed: without it a page is as it was loaded. With it the overview renews itself.

const EVERY_MS = 30_000;

const localTimes = () => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = `${new Date(time.dateTime).toLocaleString()} (your time)`;
  }
};
localTimes();

const button = document.querySelector("#updates");
if (button !== null) {
  let paused = false;
  let news = document.querySelector("h1")?.textContent;
  const said = document.querySelector("#said");
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on updating" : "Stop updating";
  });
  setInterval(async () => {
    const main = document.querySelector("main");
    // Not under somebody's hands: a link with the focus, an open table.
    const isInUse = main.contains(document.activeElement) && document.activeElement !== main;
    if (paused || document.hidden || isInUse || main.querySelector("details[open]") !== null) return;
    try {
      const response = await fetch(location.href, { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      main.replaceChildren(...page.querySelector("main").childNodes);
      document.title = page.title;
      localTimes();
      const now = document.querySelector("h1")?.textContent;
      if (now !== news) said.textContent = now;
      news = now;
    } catch {
      said.textContent = "The page could not be renewed. It shows what was known before.";
    }
  }, EVERY_MS);
}
