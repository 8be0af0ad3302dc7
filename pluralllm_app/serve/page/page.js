"use strict";
{
  const STEP = 10; // questions shown at first, and more at each demand
  const byId = (id) => document.getElementById(id);
  const groups = ["Group 1", "Group 2"].map((name) => ({ name, description: "", answers: new Map() }));
  const SIDES = ["first", "second"];
  let current = 0;
  let card = null;
  let token = "";
  let shown = STEP;
  let added = []; // new questions, the latest first

  // Every text of the service or of the user becomes text, and never markup.
  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // Requests: the latest of a kind ends those before it.
  const running = {};
  async function request(kind, path, body) {
    running[kind]?.abort();
    const { signal } = (running[kind] = new AbortController());
    const headers = {};
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body) headers["Content-Type"] = "application/json";
    let response;
    let content;
    try {
      response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
      content = await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The service does not answer: is it still running, and is this machine connected?");
    }
    if (response.status === 401) {
      askForToken();
      throw new Error("This is not the token of the service.");
    }
    if (!response.ok) throw new Error(content.error);
    return content;
  }

  function askForToken() {
    byId("survey").textContent = "Who asks?";
    byId("access").hidden = false;
    byId("retry").hidden = true;
    byId("token").focus();
  }

  // Does something, and says why where it fails; then it can be tried again.
  let failed = null;
  async function attempt(action) {
    try {
      await action();
      failed = null;
    } catch (error) {
      if (error.name === "AbortError") return;
      failed = action;
      byId("failure").firstElementChild.textContent = error.message;
    }
    byId("failure").hidden = failed === null;
  }

  // What is known of a group
  const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
  const complete = (numbers) => Math.abs(total(numbers) - 100) < 0.05;
  function known({ answers, description }) {
    const found = { answers: {} };
    for (const { question, numbers } of answers.values()) {
      if (complete(numbers)) found.answers[question.id] = numbers.map((number) => Number((number / 100).toFixed(6)));
    }
    if (card.new_texts && description.trim()) found.description = description.trim();
    return found;
  }
  const isEnough = (found) => Object.keys(found.answers).length >= card.least_answers;
  const isKnown = (found) => Object.keys(found.answers).length > 0 || Boolean(found.description);

  // The others take what one leaves, in their proportions, in whole percents.
  function share(numbers, place, value) {
    const rest = 100 - value;
    const others = numbers.map((number, index) => (index === place ? 0 : number));
    const sum = total(others);
    const parts = others.map((number, index) =>
      index === place ? 0 : (rest * (sum ? number : 1)) / (sum || numbers.length - 1),
    );
    return whole(parts, rest).map((part, index) => (index === place ? value : part));
  }
  function whole(parts, sum) {
    const floors = parts.map(Math.floor);
    const order = parts.map((part, index) => index).sort((a, b) => parts[b] - floors[b] - (parts[a] - floors[a]));
    let left = Math.round(sum - total(floors));
    for (const index of order) if (left-- > 0) floors[index] += 1;
    return floors;
  }

  function answerCard(group, entry, number) {
    const { question } = entry;
    const sum = make("p", { className: "sum" });
    const inputs = question.options.map((option, place) => {
      const label = `a${number}-${place}`;
      const slider = make("input", { type: "range", min: 0, max: 100, step: 1, ariaLabel: `${option}, in percent` });
      const box = make("input", { type: "number", id: label, min: 0, max: 100, step: "any", inputMode: "decimal" });
      slider.addEventListener("input", () => set(share(entry.numbers, place, Number(slider.value))));
      box.addEventListener("input", () => {
        const value = Number(box.value);
        set(entry.numbers.map((old, index) => (index === place ? Math.min(Math.max(value, 0), 100) || 0 : old)), box);
      });
      const row = make("div", { className: "option" }, make("label", { htmlFor: label, dir: "auto" }, option), slider, box, "%");
      return { row, slider, box };
    });
    function show(typed) {
      inputs.forEach(({ slider, box }, place) => {
        const value = entry.numbers[place];
        slider.value = value;
        if (box !== typed) box.value = Number(value.toFixed(2));
      });
      const found = total(entry.numbers);
      const done = complete(entry.numbers);
      sum.classList.toggle("open", !done);
      sum.replaceChildren(found ? `Sum: ${Number(found.toFixed(2))} %` : "Not answered yet");
      if (found && !done) {
        const scale = make("button", { type: "button" }, "Scale to 100 %");
        scale.addEventListener("click", () => {
          set(entry.numbers.map((value) => (100 * value) / found));
          inputs[0].box.focus();
        });
        sum.append(": it is not used until it is 100 %", scale);
      }
    }
    function set(numbers, typed) {
      entry.numbers = numbers;
      show(typed);
      later();
    }
    const remove = make("button", { type: "button", ariaLabel: `Remove the answer to: ${question.text}` }, "Remove");
    remove.addEventListener("click", () => {
      group.answers.delete(question.id);
      showGroup();
      byId("search").focus();
      later();
    });
    show();
    const head = make("div", { className: "head" }, make("h4", { dir: "auto" }, question.text), remove);
    return make("article", { className: "answer" }, head, ...inputs.map(({ row }) => row), sum);
  }

  function addAnswer(question) {
    const { answers } = groups[current];
    if (!answers.has(question.id)) answers.set(question.id, { question, numbers: question.options.map(() => 0) });
    for (const id of ["found", "next", "asking"]) byId(id).replaceChildren();
    byId("search").value = "";
    showGroup();
    byId("answers").lastElementChild.querySelector("input").focus();
  }

  function showGroup() {
    const group = groups[current];
    byId("name").value = group.name;
    byId("description").value = group.description;
    byId("answers").replaceChildren(...[...group.answers.values()].map((entry, number) => answerCard(group, entry, number)));
    byId("no-answers").hidden = group.answers.size > 0;
    showNames();
  }
  function showNames() {
    document.querySelectorAll(".tabs span").forEach((span, number) => (span.textContent = groups[number].name));
    byId("beside").options[1].textContent = groups[1 - current].name;
  }

  function choices(list, questions, detail) {
    byId(list).replaceChildren(
      ...questions.map((question) => {
        const button = make("button", { type: "button", dir: "auto" }, question.text, make("small", {}, detail(question)));
        button.addEventListener("click", () => addAnswer(question));
        return make("li", {}, button);
      }),
    );
  }

  function search() {
    return attempt(async () => {
      const text = byId("search").value.trim();
      const found = text ? (await request("search", `questions?${new URLSearchParams({ search: text })}`)).questions : [];
      const left = found.filter(({ id }) => !groups[current].answers.has(id)).slice(0, 6);
      choices("found", left, ({ options }) => options.join(" · "));
    });
  }

  function ask() {
    const status = byId("asking");
    status.textContent = "Choosing ...";
    byId("next").replaceChildren();
    return attempt(async () => {
      try {
        const { questions } = await request("ask", "ask", { ...known(groups[current]), count: 3 });
        const explained = new Map(questions.map(({ question, explained: part }) => [question.id, part]));
        const fresh = questions.map(({ question }) => question).filter(({ id }) => !groups[current].answers.has(id));
        const told = ({ id }) =>
          `${id === fresh[0].id ? "" : "with those above it: "}${Math.round(100 * explained.get(id))} % less uncertain about the others`;
        choices("next", fresh, told);
        status.textContent = fresh.length ? "" : "Nothing is left to ask.";
      } catch (error) {
        status.textContent = "";
        throw error;
      }
    });
  }

  // What is predicted
  const percent = (value) => `${(100 * value).toFixed(0)} %`;
  function shareCell(side, name, value, low, high) {
    const bar = make("span", { className: "bar" });
    bar.style.width = `${100 * value}%`;
    const track = make("span", { className: "track" }, bar);
    track.setAttribute("aria-hidden", "true");
    const number = make("span", { className: "number" }, percent(value));
    if (low !== undefined) {
      const range = make("span", { className: "range" });
      range.style.left = `${100 * low}%`;
      range.style.width = `${100 * (high - low)}%`;
      track.append(range);
      number.append(" ", make("small", {}, `${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)} %`));
    }
    return make("div", { className: `share ${side}` }, track, make("span", { className: "hidden" }, `${name}: `), number);
  }

  function predictionTable(prediction, other, sides) {
    const { question, shares, intervals } = prediction;
    const rows = question.options.map((option, place) => {
      const cell = make("td", {}, shareCell(sides[0].look, sides[0].name, shares[place], intervals[0]?.low[place], intervals[0]?.high[place]));
      if (other) cell.append(shareCell(sides[1].look, sides[1].name, other.shares[place]));
      return make("tr", {}, make("th", { scope: "row", dir: "auto" }, option), cell);
    });
    const caption = make("caption", { dir: "auto" }, question.text);
    if (!question.id) caption.append(make("small", {}, "a new question: the survey does not have it"));
    const head = ["option", "predicted"].map((text) => make("th", { scope: "col" }, make("span", { className: "hidden" }, text)));
    return make("table", {}, caption, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  }

  async function wanted(one, other) {
    const text = byId("filter").value.trim();
    if (byId("order").value === "difference" && other && !text) {
      const { differences } = await request("compare", "compare", { one, other, count: shown });
      return { questions: differences.map(({ question }) => question), found: card.questions };
    }
    const pages = [];
    let found = Infinity;
    for (let start = 0; start < Math.min(shown, found); start = pages.length) {
      const page = await request("list", `questions?${new URLSearchParams({ search: text, start })}`);
      found = page.found;
      pages.push(...page.questions);
    }
    return { questions: pages.slice(0, shown), found };
  }

  function sidesNow() {
    const beside = byId("beside").value;
    const sides = [{ name: groups[current].name, look: SIDES[current], known: known(groups[current]) }];
    if (beside === "other") {
      const other = groups[1 - current];
      const side = { name: other.name, look: SIDES[1 - current], known: known(other) };
      if (isEnough(side.known)) sides.push(side);
    } else if (beside === "all" && card.least_answers === 0 && isKnown(sides[0].known)) {
      sides.push({ name: "all groups on average", look: "average", known: { answers: {} } });
    }
    return sides;
  }

  function showKey(sides, ranges) {
    const entries = sides.map(({ name, look }) => make("span", { dir: "auto" }, make("i", { className: `block ${look}` }), name));
    if (ranges) entries.push(make("span", {}, make("i", { className: "block line" }), "holds the true share 4 times in 5"));
    byId("key").replaceChildren(...entries);
  }

  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  function showCall(body) {
    const lines = [`curl ${quoted(new URL("predict", location.href).href)}`, "-H 'Content-Type: application/json'"];
    if (token) lines.push('-H "Authorization: Bearer $PLURALLLM_TOKEN"');
    lines.push(`-d ${quoted(JSON.stringify(body))}`);
    byId("call").textContent = lines.join(" \\\n  ");
    byId("copied").textContent = "";
  }

  function predict() {
    const status = byId("status");
    status.textContent = "Predicting ...";
    return attempt(async () => {
      try {
        const sides = sidesNow();
        if (!isEnough(sides[0].known)) {
          for (const id of ["predictions", "key", "notes"]) byId(id).replaceChildren();
          status.textContent = "This kind of predictor needs an answer of the group: add one.";
          return;
        }
        const { questions, found } = await wanted(sides[0].known, sides[1]?.known);
        const asked = [...added, ...questions.map(({ id }) => id)];
        showCall({ ...sides[0].known, questions: asked });
        const answers = asked.length
          ? await Promise.all(sides.map((side, number) => request(`predict${number}`, "predict", { ...side.known, questions: asked })))
          : [];
        const tables = (answers[0]?.predictions ?? []).map((prediction, place) =>
          predictionTable(prediction, answers[1]?.predictions[place], sides),
        );
        byId("predictions").replaceChildren(...tables);
        showKey(sides, answers[0]?.predictions.some(({ intervals }) => intervals.length));
        byId("notes").replaceChildren(...(answers[0]?.notes ?? []).map((note) => make("li", { dir: "auto" }, note)));
        byId("more").hidden = questions.length >= found;
        status.textContent = questions.length ? `${questions.length} of ${found.toLocaleString("en")} questions` : "No question has these words.";
      } catch (error) {
        if (error.name !== "AbortError") status.textContent = "";
        throw error;
      }
    });
  }
  // A new question is kept once it was predicted, so that one that is refused stands in no way.
  function predictNew(question) {
    return attempt(async () => {
      await request("new", "predict", { ...known(groups[current]), questions: [question] });
      added = [question, ...added].slice(0, STEP);
      predict();
    });
  }
  function delayed(action, milliseconds) {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(action, milliseconds);
    };
  }
  const later = delayed(predict, 250);

  async function start() {
    await attempt(async () => {
      if (!token && (await request("health", "health")).token) return askForToken();
      card = await request("card", "card");
      byId("access").hidden = true;
      byId("retry").hidden = false;
      byId("survey").textContent = card.survey;
      document.title = `${card.survey}: PluralLLM`;
      byId("model").textContent = `${card.title}, ${card.questions.toLocaleString("en")} questions` + (card.synthetic ? "; its answers are made up" : "");
      byId("description").disabled = !card.new_texts;
      byId("no-description").hidden = card.new_texts;
      byId("new").hidden = !card.new_texts;
      byId("ask").hidden = !card.asks;
      if (card.least_answers) byId("no-answers").textContent = "None yet.";
      const entries = Object.entries(card.card).flatMap(([heading, lines]) => [
        make("dt", {}, heading),
        ...lines.map((line) => make("dd", { dir: "auto" }, line)),
      ]);
      byId("card").replaceChildren(...entries);
      byId("main").hidden = false;
      showGroup();
    });
    if (card) await predict();
    document.documentElement.dataset.ready = "";
  }

  byId("retry").addEventListener("click", () => (card ? attempt(failed) : start()));
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    start();
  });
  for (const radio of document.querySelectorAll("[name=current]")) {
    radio.addEventListener("change", () => {
      current = Number(radio.value);
      for (const id of ["found", "next"]) byId(id).replaceChildren();
      showGroup();
      predict();
    });
  }
  byId("name").addEventListener("input", ({ target }) => {
    groups[current].name = target.value.trim() || `Group ${current + 1}`;
    showNames();
    showKey(sidesNow(), false);
    later();
  });
  byId("description").addEventListener("input", ({ target }) => {
    groups[current].description = target.value;
    later();
  });
  byId("search").addEventListener("input", delayed(search, 200));
  byId("ask").addEventListener("click", ask);
  byId("filter").addEventListener("input", () => {
    shown = STEP;
    later();
  });
  for (const id of ["beside", "order"]) byId(id).addEventListener("change", predict);
  byId("more").addEventListener("click", () => {
    shown += STEP;
    predict();
  });
  byId("new-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const options = byId("new-options").value.split("\n").map((line) => line.trim()).filter(Boolean);
    predictNew({ text: byId("new-text").value.trim(), options });
  });
  byId("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("call").textContent);
      byId("copied").textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(byId("call"));
      byId("copied").textContent = "Selected: copy it by Ctrl-C.";
    }
  });
  start();
}
