// Dark or light: the system's choice unless the person made another. Loaded before the
// first paint, as a plain script, so that no page flashes in the wrong colours.
(() => {
  const KEY = "matchday.theme";
  const CHOICES = ["system", "dark", "light"];
  const root = document.documentElement;

  function read() {
    try {
      const kept = localStorage.getItem(KEY);
      return CHOICES.includes(kept) ? kept : "system";
    } catch {
      return "system"; // storage may be forbidden; the choice then lasts as long as the page
    }
  }

  function apply(choice) {
    if (choice === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = choice;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = { system: "◐", dark: "●", light: "○" }[choice];
      button.setAttribute("aria-label", `Colours: ${choice}. Change`);
      button.title = `Colours: ${choice}`;
    }
    root.dispatchEvent(new CustomEvent("themechange"));
  }

  let choice = read();
  apply(choice);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(choice));
  document.addEventListener("DOMContentLoaded", () => {
    apply(choice);
    document.getElementById("theme")?.addEventListener("click", () => {
      choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // as above
      }
      apply(choice);
    });
  });
})();
