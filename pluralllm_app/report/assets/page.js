"use strict";
{
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const byId = (id) => document.getElementById(id);

  // A later drawing of a box wins over an earlier, slower one.
  async function draw(box, chart, change) {
    const spec = structuredClone(chart);
    change(spec);
    const theme = dark.matches ? "dark" : "light";
    const turn = (box.turn = (box.turn ?? 0) + 1);
    const holder = document.createElement("div");
    holder.className = "drawing";
    box.append(holder);
    // Vega-Lite warns that it drops "fit-y" where the height follows the rows, as it is meant to.
    const result = await vegaEmbed(holder, spec, {
      actions: false,
      renderer: "svg",
      config: data.config[theme],
      tooltip: { theme },
    });
    if (turn !== box.turn) {
      result.finalize();
      holder.remove();
      return;
    }
    box.result?.finalize();
    box.result = result;
    holder.classList.remove("drawing");
    box.replaceChildren(holder);
  }

  // Figures with methods to choose
  function figure(element) {
    const axis = element.querySelector("[data-axis]");
    const boxes = [...element.querySelectorAll("[data-chart]")];
    const methods = [...element.querySelectorAll("[data-method]")];
    const shown = () => methods.filter((input) => input.checked).map((input) => input.value);
    const redraw = () =>
      Promise.all(
        boxes.map((box) =>
          draw(box, data.charts[box.dataset.chart], (spec) => {
            spec.params.find((param) => param.name === "shown").value = shown();
            for (const { encoding } of axis ? spec.layer : []) {
              if (encoding.x) Object.assign(encoding.x, { field: axis.value, title: data.axes[axis.value] });
            }
          }),
        ),
      );
    axis?.addEventListener("change", redraw);
    methods.forEach((input) => input.addEventListener("change", redraw));
    return redraw;
  }

  // True and predicted shares of a question
  function predictions({ questions, groups, chart }) {
    const [group, question, search, order] = ["group", "question", "search", "order"].map(byId);
    const [previous, next] = ["previous", "next"].map(byId);
    const percent = (share) => `${(share / 10).toFixed(1)} %`;
    const short = (text) => (text.length > 120 ? `${[...text].slice(0, 119).join("")}…` : text);
    const words = questions.map(([, text, options]) => [text, ...options].join("\n").toLowerCase());
    const roles = { evaluation: "never trained on", train: "trained on" };
    let answer = null; // [question, true shares, predicted shares, score]

    for (const [role, label] of Object.entries(roles)) {
      const own = document.createElement("optgroup");
      own.label = label;
      own.append(
        ...groups.filter((each) => each.role === role).map((each) => new Option(each.name, each.name)),
      );
      if (own.children.length) group.append(own);
    }

    const current = () => groups.find((each) => each.name === group.value);

    function list() {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = current().answers.filter(([own]) =>
        wanted.every((word) => words[own].includes(word)),
      );
      if (order.value === "worst") found.sort((a, b) => a[3] - b[3]);
      if (order.value === "best") found.sort((a, b) => b[3] - a[3]);
      question.replaceChildren(
        ...found.map(([own]) => new Option(short(questions[own][1]), questions[own][0])),
      );
      question.disabled = !found.length;
      if (found.length && !(answer && found.includes(answer))) answer = found[0];
      if (!found.length) answer = null;
      if (answer) question.value = questions[answer[0]][0];
    }

    async function show() {
      const at = question.selectedIndex;
      const count = question.options.length;
      previous.disabled = at <= 0;
      next.disabled = at >= count - 1;
      const all = current().answers.length;
      byId("position").textContent = count
        ? `${at + 1} of ${count}${count < all ? ` found, ${all} in all` : ""}`
        : `none of ${all} questions has these words`;
      byId("shares").hidden = byId("options").hidden = !answer;
      byId("question-text").textContent = answer ? questions[answer[0]][1] : "";
      byId("question-score").textContent = answer
        ? `${group.value} (${roles[current().role]}): alignment score ${answer[3].toFixed(3)}`
        : "";
      if (!answer) return;
      const [own, truth, predicted] = answer;
      const options = questions[own][2];
      byId("options").tBodies[0].replaceChildren(
        ...options.map((text, index) => {
          const row = document.createElement("tr");
          for (const value of [text, percent(truth[index]), percent(predicted[index])]) {
            row.insertCell().textContent = value;
          }
          row.cells[0].dir = "auto";
          row.cells[1].className = row.cells[2].className = "number";
          return row;
        }),
      );
      const rows = options.flatMap((text, option) => [
        { option, text, kind: "label" },
        { option, text, kind: "true", share: truth[option] / 1000 },
        { option, text, kind: "predicted", share: predicted[option] / 1000 },
      ]);
      await draw(byId("shares"), chart, (spec) => {
        spec.datasets.rows = rows;
      });
    }

    const hash = () =>
      `#${new URLSearchParams({ group: group.value, question: question.value })}`;

    function recall() {
      const state = new URLSearchParams(location.hash.slice(1));
      const name = state.get("group");
      if (groups.some((each) => each.name === name)) group.value = name;
      const wanted = state.get("question");
      answer = current().answers.find((each) => questions[each[0]][0] === wanted) ?? null;
      if (answer) search.value = "";
      list();
    }

    function choose(change) {
      return () => {
        change();
        show();
        if (answer) location.replace(hash());
      };
    }
    const pick = () => {
      answer = current().answers.find((each) => questions[each[0]][0] === question.value);
    };
    const step = (by) => () => {
      question.selectedIndex += by;
      pick();
    };
    group.addEventListener(
      "change",
      choose(() => {
        const kept = answer?.[0];
        answer = current().answers.find((each) => each[0] === kept) ?? null;
        list();
      }),
    );
    question.addEventListener("change", choose(pick));
    for (const each of [search, order]) each.addEventListener("input", choose(list));
    previous.addEventListener("click", choose(step(-1)));
    next.addEventListener("click", choose(step(1)));
    addEventListener("hashchange", () => {
      if (!location.hash.includes("=")) return; // a section's anchor
      if (answer && location.hash === hash()) return; // it comes from here
      recall();
      show();
    });
    recall();
    return show;
  }

  const redraws = [...document.querySelectorAll("[data-figure]")].map(figure);
  if (data.predictions) redraws.push(predictions(data.predictions));
  const redraw = () => Promise.all(redraws.map((each) => each()));
  dark.addEventListener("change", redraw);
  redraw().then(() => document.documentElement.setAttribute("data-ready", ""));
}
