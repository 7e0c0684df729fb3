// On every page: pictures that cannot be had give way to their symbol; "/" goes to the search field.

document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement && event.target.closest(".thumb, .film")) event.target.classList.add("none");
}, true);
for (const image of document.querySelectorAll(".thumb img, .film img")) {
  if (image.complete && image.naturalWidth === 0 && image.getAttribute("loading") !== "lazy") image.classList.add("none");
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select");
  const search = document.getElementById("q");
  if (event.key === "/" && !typing && search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

// A dangerous button asks first; the question is its data-confirm.
addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// Long work: a form says so and cannot be sent twice.
addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  setTimeout(() => {
    for (const button of event.target.querySelectorAll("button:not([name])")) button.disabled = true;
  });
});
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form[method=post] button:not([name])")) {
    if (!button.hasAttribute("data-off")) button.disabled = false;
  }
});
