"use strict";
// Interactive charts. A static figure is shown until its chart is drawn, and on paper.

const themes = JSON.parse(document.getElementById("chart-themes").textContent);

const isDark = () => {
  const chosen = document.documentElement.dataset.theme ?? "system";
  return chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
};

const configuration = () => {
  const theme = themes[isDark() ? "dark" : "light"];
  const text = { labelColor: theme.text, titleColor: theme.text, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 };
  return {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { ...text, gridColor: theme.grid, domainColor: theme.secondary, tickColor: theme.secondary },
    legend: { ...text, symbolStrokeWidth: 2 },
    range: { category: theme.series, ordinal: theme.pair },
    text: { color: theme.text }, rule: { color: theme.secondary }, point: { color: theme.text },
  };
};

async function drawCharts() {
  const specs = JSON.parse(document.getElementById("chart-specs").textContent);
  const config = configuration();
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    figure.classList.add("drawn"); // before drawing: a chart is as wide as its visible place
    const places = figure.querySelectorAll(".live");
    for (const [index, place] of places.entries()) {
      // The content security policy forbids eval, so Vega interprets its expressions.
      await vegaEmbed(place, structuredClone(specs[figure.dataset.chart][index]), {
        mode: "vega-lite", ast: true, renderer: "svg", actions: false, config, defaultStyle: false,
        tooltip: { disableDefaultStyle: true },
      });
    }
  }
  document.documentElement.dataset.charts = "drawn";
}

drawCharts();
document.addEventListener("themechange", drawCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
