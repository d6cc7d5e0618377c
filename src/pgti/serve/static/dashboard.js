"use strict";
// Polls the state of the forecasts, and draws their figures anew when it has changed.
const EVERY = 5000; // milliseconds
const KEY = "pgti-token";
const at = (id) => document.getElementById(id);
const options = { responsive: true, displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"], scrollZoom: false };
let state = null, drawn = "", chosen = "", timer = 0, busy = false, again = false, loaded = 0;

async function ask(path, parameters = {}) {
  const token = sessionStorage.getItem(KEY);
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, {
    headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store" });
  if (answer.status === 401) throw Object.assign(new Error("token"), { login: true });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.detail);
  return content;
}

function duration(seconds) {
  const [size, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]
    .find(([each]) => Math.abs(seconds) >= each) || [1, "second"];
  const number = Math.round(seconds / size);
  return `${number} ${unit}${number === 1 ? "" : "s"}`;
}

function clock(time) {
  return typeof time === "number" ? `row ${time}` : time.slice(0, 16).replace("T", " ");
}

function showStatus(text, isProblem = false) {
  at("status").textContent = text;
  at("status").classList.toggle("problem", isProblem);
}

function showAge() {
  if (!state) return;
  const zone = state.time_zone ? ` (${state.time_zone})` : "";
  let text = `Data until ${clock(state.origin)}${zone}`;
  if (state.age_seconds !== null) {
    const age = state.age_seconds + (Date.now() - loaded) / 1000;
    text += `, ${duration(age)} old`;
  }
  if (state.age_seconds === null && typeof state.origin === "string") text += " (no time zone is known)";
  const epoch = state.epoch === null ? "" : `, epoch ${state.epoch}`;
  at("model").textContent = `of ${state.model}${epoch}`;
  showStatus(`${text}.`);
}

function showStep() {
  const step = Number(at("step").value);
  const seconds = state.interval_seconds ? `, ${duration(step * state.interval_seconds)} ahead` : "";
  at("step-text").textContent = `${clock(state.times[step - 1])}${seconds}`;
}

function fill(list, names, make) {
  list.replaceChildren(...names.map(make));
}

function option(name) {
  const made = document.createElement("option");
  made.value = made.textContent = name;
  return made;
}

function showControls() {
  const channel = at("channel").value;
  fill(at("channel"), state.channels, option);
  if (state.channels.includes(channel)) at("channel").value = channel;
  at("channel-label").hidden = state.channels.length < 2;
  at("step").max = state.times.length;
  if (at("sensors").childElementCount !== state.sensors.length)
    fill(at("sensors"), state.sensors, option);
  at("notes").hidden = !state.notes.length;
  at("notes").firstElementChild.textContent =
    `${state.notes.length} note${state.notes.length === 1 ? "" : "s"} on the data`;
  fill(at("notes").lastElementChild, state.notes, (note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  });
  showStep();
}

async function draw(id, path, parameters) {
  const figure = await ask(path, parameters);
  const place = at(id);
  await Plotly.react(place, figure.data, { ...figure.layout, uirevision: id }, options);
  return place;
}

async function drawMap() {
  const place = await draw("map", "/dashboard/map",
    { channel: at("channel").value, step: at("step").value });
  place.removeAllListeners("plotly_click");
  place.on("plotly_click", (event) => choose(state.sensors[event.points[0].customdata]));
}

async function drawSensor() {
  if (chosen) await draw("chart", "/dashboard/sensor",
    { id: chosen, channel: at("channel").value });
}

function choose(sensor) {
  if (!state.sensors.includes(sensor)) return;
  chosen = at("sensor").value = sensor;
  at("chart-title").textContent = `Sensor ${sensor}`;
  attempt(drawSensor);
}

async function attempt(work) {
  try { await work(); } catch (error) { fail(error); }
}

function fail(error) {
  if (error.login) {
    const refused = sessionStorage.getItem(KEY) !== null;
    sessionStorage.removeItem(KEY);
    at("login").hidden = false;
    at("content").hidden = true;
    showStatus(refused ? "The server does not know this token." : "", refused);
    at("token").focus();
  } else {
    showStatus(`No new forecasts: ${error.message}`, true);
  }
  return Boolean(error.login);
}

async function update() {
  if (busy) { again = true; return; }
  busy = true;
  clearTimeout(timer);
  let waits = true;
  try {
    state = await ask("/dashboard/state");
    loaded = Date.now();
    at("content").hidden = false;
    at("login").hidden = true;
    showControls();
    showAge();
    const wanted = [state.version, at("channel").value, at("step").value].join("\n");
    if (wanted !== drawn) {
      await drawMap();
      await drawSensor();
      drawn = wanted;
    }
  } catch (error) {
    waits = !fail(error);
  }
  busy = false;
  if (again) { again = false; update(); } else if (waits) timer = setTimeout(update, EVERY);
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("token").value);
  at("token").value = "";
  update();
});
at("step").addEventListener("input", () => { showStep(); update(); });
at("channel").addEventListener("change", update);
at("sensor").addEventListener("change", () => choose(at("sensor").value));
setInterval(showAge, 30000);
update();
