"use strict";

// Tables that sort, filter and hide columns. Rows are moved, not made: no text becomes markup.
(() => {
  const FIRST = 100;

  const grouped = (number) => number.toLocaleString("en-US");
  const named = (text) => text.toLowerCase().replace(/ \(.*/, "").replace(/\s+/g, "_");

  // A number equals the number that a cell shows, whatever its separators; a text begins a word.
  const says = (cell, wanted) => {
    const text = cell.toLowerCase().replace(/(\d),(?=\d{3})/g, "$1");
    const words = [text, ...text.split(/[\s(),]+/)];
    const number = Number(wanted.replace(/,/g, ""));
    return Number.isNaN(number)
      ? words.some((word) => word.startsWith(wanted))
      : words.some((word) => word !== "" && Number(word) === number);
  };

  for (const section of document.querySelectorAll("section.data")) {
    const find = (selector) => section.querySelector(selector);
    const [box, tools, further] = [find(".rows"), find(".tools"), find(".further")];
    const table = box.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const ticks = [...tools.querySelectorAll("[type=checkbox]")];
    const style = document.head.appendChild(document.createElement("style"));
    const all = [...table.tBodies, ...(find("template")?.content.children ?? [])];
    all.forEach((row, place) => Object.assign(row, { place }));
    let [rows, limit, sorted, descending, chosen] = [all, FIRST, heads[0], false, false];

    const draw = () => {
      // The headings stay where they are, and so does the focus.
      for (const row of [...table.tBodies]) row.remove();
      table.append(...rows.slice(0, limit));
      const total = `${grouped(all.length)} row${all.length === 1 ? "" : "s"}`;
      find("output").value = rows.length < all.length ? `${grouped(rows.length)} of ${total}` : total;
      further.hidden = rows.length <= limit;
    };

    // --- which rows, in which order ---------------------------------------------------------------

    const matches = (word) => {
      const [, name = "", wanted] = word.match(/^([^=]+)=(.+)$/) ?? [];
      const place = heads.findIndex((head) => [head.dataset.key, named(head.textContent)].includes(name));
      if (place >= 0) return (row) => says(row.rows[0].cells[place].textContent, wanted);
      return (row) => (row.text ??= row.textContent.toLowerCase()).includes(word);
    };

    const update = () => {
      const words = tools.querySelector("[type=search]").value.toLowerCase().match(/\S+/g) ?? [];
      const tests = words.map(matches);
      const value = (row) => (row.order ??= row.dataset.order.split(" "))[heads.indexOf(sorted) - 1] ?? row.place;
      const sign = descending ? -1 : 1;
      rows = all
        .filter((row) => tests.every((test) => test(row)))
        .map((row) => [Number(value(row)), row])
        // Rows without a value come last in both directions.
        .sort(([a, one], [b, other]) => (a < 0) - (b < 0) || sign * (a - b) || one.place - other.place)
        .map(([, row]) => row);
      for (const head of heads) head.removeAttribute("aria-sort");
      sorted.setAttribute("aria-sort", descending ? "descending" : "ascending");
      limit = FIRST;
      draw();
    };

    const sort = (event) => {
      if (event.type === "keydown" && event.key !== "Enter" && event.key !== " ") return;
      const head = event.target.closest("[role=button]")?.parentElement;
      if (!head) return;
      event.preventDefault();
      descending = head === sorted ? !descending : head.classList.contains("n") && head !== heads[0];
      sorted = head;
      update();
    };

    for (const head of heads.filter((one) => !one.classList.contains("unsorted"))) {
      // Not a button element: browsers leave those out where headings are repeated on paper.
      const button = document.createElement("span");
      button.setAttribute("role", "button");
      button.tabIndex = 0;
      button.append(...head.childNodes);
      head.append(button);
    }
    table.tHead.addEventListener("click", sort);
    table.tHead.addEventListener("keydown", sort);
    let waiting;
    tools.querySelector("[type=search]").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(update, all.length > 1000 ? 150 : 0);
    });
    further.addEventListener("click", (event) => {
      limit += Number(event.target.value ?? 0);
      draw();
    });

    // --- which columns ----------------------------------------------------------------------------

    const hide = () => {
      const places = ticks.flatMap((tick, place) => (tick.checked ? [] : [place + 2]));
      const hidden = places.map((place) => `#${section.id} .rows tr:not(.more) > :nth-child(${place})`);
      style.textContent = `${hidden.join()} { display: none }`;
    };

    const widths = heads.map((head) => head.offsetWidth);
    const turns = heads.map((head, place) => [Number(head.dataset.turn ?? 0), place]).sort((a, b) => a[0] - b[0]);
    const fit = () => {
      let room = box.clientWidth;
      for (const [turn, place] of turns) {
        const shown = turn === 0 || widths[place] <= room;
        if (shown) room -= widths[place];
        if (place > 0) ticks[place - 1].checked = shown;
      }
      hide();
    };

    tools.addEventListener("change", () => {
      chosen = true;
      hide();
    });
    window.addEventListener("resize", () => chosen || fit());

    // What is not shown of a row stands in its details.
    table.addEventListener("toggle", (event) => {
      const [row, more] = event.target.closest("tbody").rows;
      const hidden = heads.filter((_, place) => place > 0 && !ticks[place - 1].checked);
      const lines = hidden.map((head) => `${head.textContent}=${row.cells[head.cellIndex].textContent}`);
      const known = lines.filter((line) => !line.endsWith("=-"));
      more.querySelector(".unshown").textContent = known.map((line) => `${line}\n`).join("");
    }, true);

    document.documentElement.classList.add("scripted");
    tools.hidden = false;
    draw();
    fit();
  }
})();
