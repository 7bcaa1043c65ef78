"use strict";
// Charts fit their column, also on paper; tables sort by a click on a heading; the references go to the clipboard.
(function () {
  var charts = Array.prototype.slice.call(document.querySelectorAll(".chart"));
  charts.forEach(function (div) {
    var figure = JSON.parse(document.getElementById(div.id + "-data").textContent);
    var narrow = window.matchMedia("(max-width: 640px)").matches;
    if (narrow) {
      // On a phone the legend goes below the plot and the margins shrink.
      figure.layout.margin = { l: 52, r: 8, t: 34, b: 44 };
      figure.layout.legend = { orientation: "h", y: -0.2, yanchor: "top", font: { size: 10 } };
      figure.layout.title.font = { size: 13 };
      var x = figure.layout.xaxis, y = figure.layout.yaxis;
      x.title.text = x.title.text.replace(/ \(.*\)$/, ""); // how FLOPs are counted stands in the methods as well
      // Names of rows stand on their lines: beside them they would take half of the plot.
      if (y.type === "category") { y.ticklabelposition = "inside top"; x.nticks = 8; figure.layout.margin.l = 8; }
    }
    var options = { responsive: true, displaylogo: false, scrollZoom: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    if (narrow) options.displayModeBar = false;
    Plotly.newPlot(div, figure.data, figure.layout, options).then(function () { div.dataset.drawn = "yes"; });
  });
  function resize() { charts.forEach(function (div) { if (div.dataset.drawn) Plotly.Plots.resize(div); }); }
  window.addEventListener("beforeprint", resize);
  window.addEventListener("afterprint", resize);

  function value(cell) {
    var raw = cell.dataset.value;
    if (raw === undefined) return cell.textContent.trim();
    return raw === "" ? NaN : Number(raw);
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") {
      if (isNaN(a)) return isNaN(b) ? 0 : 1; // what is missing stays last
      if (isNaN(b)) return -1;
      return a - b;
    }
    return String(a).localeCompare(String(b));
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      head.querySelector("button").addEventListener("click", function () {
        var descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (h) { h.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        var rows = Array.prototype.slice.call(table.tBodies[0].rows);
        rows.sort(function (r, s) {
          var a = value(r.cells[column]), b = value(s.cells[column]), order = compare(a, b);
          var missing = typeof a === "number" && (isNaN(a) || isNaN(b));
          return descending && !missing ? -order : order;
        });
        rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
      });
    });
  });

  document.querySelectorAll("button.copy").forEach(function (button) {
    button.addEventListener("click", function () {
      var text = document.getElementById(button.dataset.of).textContent;
      function said(word) { button.textContent = word; }
      function byHand() {
        var area = document.createElement("textarea");
        area.value = text;
        document.body.appendChild(area);
        area.select();
        said(document.execCommand("copy") ? "Copied" : "Select and copy by hand");
        area.remove();
      }
      // A page opened from a file may have no clipboard.
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(function () { said("Copied"); }, byHand); else byHand();
    });
  });
})();
