(function () {
  if (typeof Plotly === "undefined") return;
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function draw() {
    var style = getComputedStyle(document.documentElement);
    var ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    var card = style.getPropertyValue("--card").trim();
    Object.keys(figures).forEach(function (name) {
      var box = document.getElementById(name);
      if (!box) return;
      var layout = JSON.parse(JSON.stringify(figures[name].layout));
      layout.font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink };
      layout.hoverlabel = { align: "left", bgcolor: card, bordercolor: line, font: { color: ink, size: 13 } };
      ["xaxis", "yaxis"].forEach(function (axis) {
        layout[axis] = Object.assign({ gridcolor: line, linecolor: line }, layout[axis]);
      });
      Plotly.react(box, figures[name].data, layout, { displayModeBar: false, responsive: true });
    });
  }
  draw();
  dark.addEventListener("change", draw);
})();
