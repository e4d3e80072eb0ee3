// Draws the page anew every two seconds, as long as somebody looks at it. Without it the page stays as it came.
"use strict";
const lost = document.getElementById("lost");
setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const scrolled = [...document.querySelectorAll(".wide")].map((wide) => wide.scrollLeft);
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.querySelectorAll(".wide").forEach((wide, nth) => { wide.scrollLeft = scrolled[nth] ?? 0; });
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
}, 2000);
