(() => {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll(".figure")];
  let printing = false;

  const colours = () => {
    // Paper is white, whatever theme the reader prefers on the screen.
    const night = dark.matches && !printing;
    return { ink: night ? "#e3e8ee" : "#1c2430", line: night ? "#38424f" : "#e3e7ec" };
  };

  const themed = layout => {
    const { ink, line } = colours();
    const theme = {
      "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font.color": ink,
    };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        theme[`${key}.gridcolor`] = line;
        theme[`${key}.zerolinecolor`] = line;
        theme[`${key}.linecolor`] = line;
      }
    }
    return theme;
  };

  const draw = figure => {
    if (figure.dataset.drawn) return Promise.resolve();
    figure.dataset.drawn = "yes";
    const place = figure.querySelector(".plot");
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    // A figure with a width of its own does not follow that of the page.
    delete layout.width;
    const config = { responsive: true, displayModeBar: false };
    return Plotly.newPlot(place, data, layout, config)
      .then(() => Plotly.relayout(place, themed(layout)))
      .then(() => show(figure));
  };

  const show = figure => {
    const input = figure.querySelector("[data-shows]");
    // Before its first drawing a figure has no traces; `draw` calls this again.
    if (!input || !figure.dataset.drawn) return Promise.resolve();
    const chosen = Number(input.value);
    const names = JSON.parse(input.dataset.shows);
    figure.querySelector("output").textContent = names[chosen];
    input.setAttribute("aria-valuetext", names[chosen]);
    const place = figure.querySelector(".plot");
    // A name may have several traces: the names come round in order.
    return Plotly.restyle(place, {
      visible: place.data.map((_, i) => i % names.length === chosen),
    });
  };

  const repaint = () => Promise.all(figures.filter(f => f.dataset.drawn).map(f => {
    const place = f.querySelector(".plot");
    return Plotly.relayout(place, themed(place.layout));
  }));

  // A page may hold hundreds of figures: each is drawn shortly before it scrolls into view.
  const near = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "600px" });
  for (const figure of figures) {
    near.observe(figure);
    const input = figure.querySelector("[data-shows]");
    if (input) input.addEventListener("input", () => show(figure));
  }

  dark.addEventListener("change", repaint);
  window.addEventListener("beforeprint", () => {
    printing = true;
    // What has not been in view yet is not drawn, and would be blank on paper.
    figures.forEach(draw);
    repaint();
  });
  window.addEventListener("afterprint", () => { printing = false; repaint(); });

  // A browser that can unpack gives plain CSV; another one the packed file that the link names.
  for (const link of document.querySelectorAll("a[data-packed]")) {
    link.addEventListener("click", async event => {
      if (!window.DecompressionStream) return;
      event.preventDefault();
      const bytes = Uint8Array.from(atob(link.href.split(",")[1]), c => c.charCodeAt(0));
      const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const blob = new Blob([await new Response(plain).blob()], { type: "text/csv" });
      const made = document.createElement("a");
      made.href = URL.createObjectURL(blob);
      made.download = link.dataset.packed;
      made.click();
      // The browser reads the blob after the click returns.
      setTimeout(() => URL.revokeObjectURL(made.href), 10000);
    });
  }
})();
