"use strict";
// Interactive charts. A static figure is shown until its chart is drawn, and on paper.

const themes = {
  light: { text: "#1b1d21", dim: "#565b63", line: "#d5d8dd", pair: ["#0072b2", "#6b6b6b"],
           category: ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#6b6b6b"] },
  dark: { text: "#e7e9ec", dim: "#a9b0ba", line: "#3a3f46", pair: ["#56b4e9", "#a9b0ba"],
          category: ["#56b4e9", "#f08a4b", "#2cc39a", "#ecbb5a", "#e2a0c4", "#8ab8f5", "#a9b0ba"] },
};

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
    axis: { ...text, gridColor: theme.line, domainColor: theme.dim, tickColor: theme.dim },
    legend: { ...text, symbolStrokeWidth: 2 },
    range: { category: theme.category, ordinal: theme.pair },
    text: { color: theme.text }, rule: { color: theme.dim }, point: { color: theme.text },
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
