"use strict";

// Tables that sort, filter and open. What comes from a record is only ever made text, never markup.
(() => {
  const FIRST = 100;
  const MORE = 200;
  // Opened to the last row, a table of many thousand takes seconds to draw: once, not at each click.
  const REDRAWN = 1000;
  const MISSING = "-";
  // Paper has room for more of its smaller letters than most windows.
  const PAPER = 1500;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  const button = (text, act) => {
    const element = make("button", { type: "button" }, text);
    element.addEventListener("click", act);
    return element;
  };

  const grouped = (number) => number.toLocaleString("en-US");

  const counted = (number) => `${grouped(number)} row${number === 1 ? "" : "s"}`;

  class Column {
    constructor({ known, right = false, way = 0, ...rest }) {
      Object.assign(this, { ...rest, right, way });
      const { key, title, texts } = rest;
      this.known = known ?? texts.length;
      this.shown = true;
      this.names = [key, title.replace(/ \(.*/, ""), `${key}`.replace(/s$/, "")].map(named);
    }

    place(row) {
      return this.at ? this.at[row] : 0;
    }

    cell(row) {
      return this.texts[this.place(row)];
    }
  }

  const cut = (text, longest) => {
    const characters = [...text];
    return characters.length > longest ? `${characters.slice(0, longest).join("")}...` : text;
  };

  const named = (text) => text.toLowerCase().replace(/[\s_]+/g, "_");

  // A number equals the number that a cell shows, whatever its separators; a text begins a word.
  const matches = (cell, wanted) => {
    const said = cell.toLowerCase();
    const number = Number(wanted.replace(/,/g, ""));
    const words = [said, ...said.split(/[\s(),]+/)];
    if (wanted !== "" && !Number.isNaN(number)) {
      return [said, ...said.split(/[\s()]+|,(?!\d)/)].some(
        (word) => word !== "" && Number(word.replace(/,/g, "")) === number,
      );
    }
    return words.some((word) => word.startsWith(wanted));
  };

  class Table {
    constructor(section) {
      this.box = section.querySelector(".rows");
      this.table = this.box.querySelector("table");
      this.body = this.table.tBodies[0];
      this.read(JSON.parse(section.querySelector("script").textContent));
      this.sorting = null;
      this.descending = false;
      this.limit = FIRST;
      this.opened = new Set();
      this.rows = this.all;
      this.chosen = false;
      this.addTools();
      this.addButtons();
      this.measure();
      this.fit(this.box.clientWidth);
      this.body.addEventListener("toggle", (event) => this.toggled(event.target), true);
    }

    read(data) {
      this.data = data;
      this.columns = data.columns.map((column) => new Column(column));
      this.others = data.others.map((column) => new Column(column));
      this.all = data.commands.map((_, row) => row);
      this.texts = [];
    }

    command(row) {
      return this.data.commands[row].map((word) => this.data.words[word]).join(" ");
    }

    // --- what can be done ---------------------------------------------------------------------

    addTools() {
      const example = this.columns.find((column) => column.key === "batch_size");
      this.filter = make("input", {
        type: "search",
        placeholder: example ? `words, or batch_size=${example.cell(0)}` : "words",
        autocomplete: "off",
        spellcheck: "false",
        "aria-label": "Filter rows",
      });
      let waiting;
      this.filter.addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => this.update(), this.all.length > REDRAWN ? 150 : 0);
      });
      this.count = make("output", { class: "soft" }, counted(this.all.length));
      this.menu = make("details", { class: "menu" });
      this.menuTitle = make("summary");
      this.menu.append(this.menuTitle, this.choices());
      document.addEventListener("click", (event) => {
        if (!this.menu.contains(event.target)) this.menu.open = false;
      });
      this.menu.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
          this.menu.open = false;
          this.menuTitle.focus();
        }
      });
      const label = make("label", {}, make("span", {}, "Filter"), this.filter);
      this.box.before(make("div", { class: "tools" }, label, this.count, this.menu));
      this.further = make("div", { class: "further" });
      this.shared = make("p", { class: "shared soft" });
      this.box.after(this.further, this.shared);
    }

    choices() {
      const list = make("fieldset", { "aria-label": "Columns to show" });
      this.boxes = this.columns.map((column, place) => {
        const tick = make("input", { type: "checkbox" });
        tick.addEventListener("change", () => {
          column.shown = tick.checked;
          this.chosen = true;
          this.draw();
        });
        if (column.key !== this.data.net) list.append(make("label", {}, tick, column.title));
        return tick;
      });
      list.append(
        button("Those that fit", () => {
          this.chosen = false;
          this.fit(this.box.clientWidth);
        }),
      );
      return list;
    }

    addButtons() {
      this.heads = [...this.table.tHead.rows[0].cells];
      this.heads.forEach((head, place) => {
        const column = this.columns[place - 1] ?? null;
        if (column?.optimistic) return;
        // Not a button element: on paper those are missing where headings are repeated.
        const sorter = make("span", { role: "button", tabindex: "0" }, head.textContent);
        sorter.addEventListener("click", () => this.sort(column));
        sorter.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          this.sort(column);
        });
        head.replaceChildren(sorter);
      });
    }

    // --- which columns ------------------------------------------------------------------------

    measure() {
      this.table.style.minWidth = "0";
      this.widths = this.heads.map((head) => head.getBoundingClientRect().width);
      this.table.style.minWidth = "";
    }

    // As in a terminal: what tells rows apart comes before what does not, then the lower number.
    fit(room) {
      const same = (column) => column.texts.length === 1;
      const width = (column) => this.widths[this.columns.indexOf(column) + 1];
      const waiting = this.columns.filter((column) => column.way);
      waiting.sort((a, b) => same(a) - same(b) || a.way - b.way);
      for (const column of this.columns) column.shown = !column.way;
      let used = this.widths[0];
      for (const column of this.columns) if (column.shown) used += width(column);
      for (const column of waiting) {
        column.shown = used + width(column) <= room;
        if (column.shown) used += width(column);
      }
      this.draw();
    }

    // --- which rows, in which order -----------------------------------------------------------

    sort(column) {
      if (this.sorting !== column) {
        this.sorting = column;
        this.descending = column !== null && column.right;
      } else {
        this.descending = !this.descending;
      }
      this.update();
    }

    update() {
      this.limit = Math.min(this.limit, REDRAWN);
      this.rows = this.filtered();
      const { sorting, descending } = this;
      if (sorting) {
        const sign = descending ? -1 : 1;
        // Those without a value are last in both directions; equals stay in the order of the page.
        this.rows.sort((a, b) => {
          const [one, other] = [sorting.place(a), sorting.place(b)];
          const missing = (one >= sorting.known) - (other >= sorting.known);
          return missing || (one >= sorting.known ? 0 : sign * (one - other)) || a - b;
        });
      } else if (descending) {
        this.rows.reverse();
      }
      this.draw();
    }

    filtered() {
      const tests = (this.filter.value.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? []).map((word) =>
        this.test(word.replaceAll('"', "").toLowerCase()),
      );
      return this.all.filter((row) => tests.every((test) => test(row)));
    }

    test(word) {
      const [, name, wanted] = word.match(/^([^=]+)=(.*)$/s) ?? [];
      const column =
        name && [...this.columns, ...this.others].find((one) => one.names.includes(named(name)));
      if (!column) return (row) => this.text(row).includes(word);
      const right = column.texts.map((text) => matches(text, wanted));
      return (row) => right[column.place(row)];
    }

    text(row) {
      this.texts[row] ??= [
        ...this.columns.map((column) => column.cell(row)),
        this.command(row),
        ...this.runs(row).map((run) => run.place),
      ]
        .join("\n")
        .toLowerCase();
      return this.texts[row];
    }

    // --- drawing ------------------------------------------------------------------------------

    draw() {
      const visible = this.columns.filter((column) => column.shown);
      const drawn = document.createDocumentFragment();
      for (const row of this.rows.slice(0, this.limit)) {
        drawn.append(this.row(row, visible));
        if (this.opened.has(row)) drawn.append(this.details(row, visible));
      }
      if (this.rows.length === 0) {
        const none = make("td", { colspan: visible.length + 1 }, "No row has all of these.");
        drawn.append(make("tr", {}, none));
      }
      this.body.replaceChildren(drawn);
      this.heads.forEach((head, place) => {
        const column = this.columns[place - 1] ?? null;
        head.hidden = column !== null && !column.shown;
        if (column === this.sorting && (column || this.descending)) {
          head.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
        } else {
          head.removeAttribute("aria-sort");
        }
      });
      this.box.classList.toggle("fits", this.table.offsetWidth <= this.box.clientWidth);
      this.say(visible);
    }

    say(visible) {
      const [total, found] = [this.all.length, this.rows.length];
      this.count.value =
        found === total ? counted(total) : `${grouped(found)} of ${counted(total)}`;
      this.menuTitle.textContent = `Columns: ${visible.length} of ${this.columns.length}`;
      this.columns.forEach((column, place) => {
        this.boxes[place].checked = column.shown;
      });
      const alike = this.columns.filter((one) => one.recipe && !one.at && !one.shown);
      const said = alike.map((one) => `${one.title} ${cut(one.cell(0), this.data.longest)}`);
      const whose = total > 1 ? "All rows" : "And";
      this.shared.textContent = said.length > 0 ? `${whose}: ${said.join("; ")}.` : "";
      const hidden = found - this.limit;
      this.further.replaceChildren();
      if (hidden <= 0) return;
      this.further.append(
        make("span", { class: "soft" }, `${grouped(this.limit)} of ${counted(found)} shown`),
      );
      if (hidden > MORE) this.further.append(button(`Show ${MORE} more`, () => this.show(MORE)));
      this.further.append(button(`Show all ${grouped(found)}`, () => this.show(hidden)));
    }

    // Rows that are there already stay as they are.
    show(more) {
      const visible = this.columns.filter((column) => column.shown);
      const drawn = document.createDocumentFragment();
      for (const row of this.rows.slice(this.limit, this.limit + more)) {
        drawn.append(this.row(row, visible));
        if (this.opened.has(row)) drawn.append(this.details(row, visible));
      }
      this.body.append(drawn);
      this.limit += more;
      this.say(visible);
    }

    row(number, visible) {
      const line = make("tr", {}, make("td", { class: "n" }, String(this.data.first + number)));
      line.row = number;
      for (const column of visible) {
        const text = cut(column.cell(number), this.data.longest);
        if (column.key === this.data.net) {
          const opener = make("details", {}, make("summary", {}, text));
          opener.open = this.opened.has(number);
          line.append(make("th", { scope: "row" }, opener));
        } else {
          line.append(make("td", column.right ? { class: "n" } : {}, text));
        }
      }
      return line;
    }

    toggled(opener) {
      const line = opener.closest("tr");
      if (opener.open === this.opened.has(line.row)) return;
      if (opener.open) {
        this.opened.add(line.row);
        line.after(this.details(line.row, this.columns.filter((column) => column.shown)));
      } else {
        this.opened.delete(line.row);
        line.nextElementSibling.remove();
      }
    }

    // --- details ------------------------------------------------------------------------------

    details(row, visible) {
      const command = this.command(row);
      const source = this.data.sources.texts[this.data.sources.at[row]];
      const content = make(
        "div",
        {},
        ...(command
          ? [
              make("h4", {}, "Run it again"),
              make("pre", {}, make("code", {}, command)),
              copier(command),
            ]
          : []),
        ...(source ? [make("p", {}, source)] : []),
        make("h4", {}, "Its runs"),
        this.runList(row),
      );
      const long = (text) => cut(text, this.data.longest) !== text;
      const told = [
        ...this.columns.filter((column) => !column.shown || long(column.cell(row))),
        ...this.others.filter((column) => column.at || this.all.length === 1),
      ].filter((column) => column.cell(row) !== MISSING);
      if (told.length > 0) {
        const pairs = told.map((column) =>
          make("div", {}, make("dt", {}, column.title), make("dd", {}, column.cell(row))),
        );
        content.append(make("h4", {}, "Details"), make("dl", {}, ...pairs));
      }
      const cell = make("td", { colspan: visible.length + 1 }, content);
      return make("tr", { class: "more" }, cell);
    }

    runs(row) {
      return this.data.runs[row].map(([parent, name, called = name, hasConfig = 1]) => {
        const [place, address] = this.data.folders[parent];
        const within = (folder, last) => (folder ? `${folder}/${last}` : last);
        return { place: within(place, name), address: within(address, called), hasConfig };
      });
    }

    runList(row) {
      const runs = this.runs(row);
      const column = this.others.find((one) => one.key === "seeds");
      const seeds = column ? column.cell(row).split(", ") : [];
      const link = (text, address) => make("a", { href: address }, text);
      const items = runs.map(({ place, address, hasConfig }, index) => {
        const item = make("li");
        if (seeds.length === runs.length) {
          item.append(make("span", { class: "seed" }, `seed ${seeds[index]}`), " ");
        }
        item.append(link(place, `${address}/`), " ");
        item.append(link("result.json", `${address}/result.json`));
        if (hasConfig) item.append(" ", link("config.yaml", `${address}/.hydra/config.yaml`));
        return item;
      });
      return make("ul", { class: "runs" }, ...items);
    }

    // --- paper --------------------------------------------------------------------------------

    // Nothing opens on paper: what is behind a click stands below the table.
    print() {
      if (!this.chosen) this.fit(PAPER);
      const lines = this.rows.slice(0, this.limit).filter((row) => this.command(row) !== "");
      const items = lines.map((row) => {
        const number = make("span", { class: "seed" }, String(this.data.first + row));
        return make("li", {}, number, make("code", {}, this.command(row)));
      });
      this.commands = make("div", { class: "commands" });
      if (items.length > 0) {
        this.commands.append(make("h3", {}, "Commands that make these rows again"));
        this.commands.append(make("ul", {}, ...items));
      }
      this.same = this.box.parentElement.querySelector(".same:not([open])");
      if (this.same) this.same.open = true;
      (this.box.parentElement.querySelector(".same") ?? this.shared).after(this.commands);
    }

    printed() {
      this.commands?.remove();
      if (this.same) this.same.open = false;
      if (!this.chosen) this.fit(this.box.clientWidth);
    }
  }

  const copier = (command) => {
    const element = button("Copy", async () => {
      const said = (await copied(command)) ? "Copied" : "Not copied: select the text";
      element.textContent = said;
      setTimeout(() => (element.textContent = "Copy"), 2000);
    });
    element.className = "copy";
    element.setAttribute("aria-live", "polite");
    return element;
  };

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // No permission, or a page that did not come over a safe connection: the old way.
    }
    const field = make("textarea", { readonly: "" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  };

  document.documentElement.classList.add("scripted");
  const tables = [...document.querySelectorAll("section.data")].map((one) => new Table(one));

  let narrow = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === narrow) return; // a phone's bars come and go
    narrow = window.innerWidth;
    for (const table of tables) if (!table.chosen) table.fit(table.box.clientWidth);
  });
  window.addEventListener("beforeprint", () => {
    for (const table of tables) table.print();
  });
  window.addEventListener("afterprint", () => {
    for (const table of tables) table.printed();
  });
})();
