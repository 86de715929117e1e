// 1 to 4, b and n press what they are written on. A tick turns them off, for readers whose software sends single letters.
let pressed = false;
const keys = document.getElementById("keys");
if (keys) {
  keys.checked = sessionStorage.getItem("keys") !== "off";
  keys.addEventListener("change", () => sessionStorage.setItem("keys", keys.checked ? "on" : "off"));
  addEventListener("keydown", (event) => {
    if (!keys.checked || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const meant = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!meant || pressed) return;
    pressed = true; // one press is one label, however slow the next page is
    event.preventDefault();
    meant.click();
  });
}
addEventListener("pageshow", () => { pressed = false; }); // back from the browser's cache
