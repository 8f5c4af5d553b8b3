// The topology page: reads lists from the public API every few seconds, and
// draws external networks, routers, networks and ports.
//
// Names, descriptions and addresses are other people's input: they become text
// nodes (h below) and nothing else. The token is kept in a variable only.

const interval = 5000; // ms between two looks
const flash = 4000; // ms for which a change is marked
const page = 1000; // objects per request
const most = 5000; // objects of a kind that are read
const crowd = 12; // more ports of a network than these are grouped by host
const palette = ["#2563eb", "#0f766e", "#7c3aed", "#b45309", "#be185d", "#4d7c0f", "#0369a1", "#a21caf"];

const common = ["id", "name", "description", "project_id", "status", "admin_state_up", "revision_number", "tags"];

// What is read. fields: as much as the drawing and the filter need; the object
// itself is read when it is looked at.
const kinds = {
  networks: { one: "network", fields: [...common, "subnets", "shared", "mtu", "router:external", "provider:network_type", "provider:physical_network", "provider:segmentation_id", "created_at"] },
  subnets: { one: "subnet", fields: ["id", "name", "project_id", "network_id", "cidr", "ip_version", "gateway_ip", "enable_dhcp", "revision_number"] },
  ports: { one: "port", fields: [...common, "network_id", "mac_address", "fixed_ips", "device_id", "device_owner", "binding:host_id", "security_groups"] },
  routers: { one: "router", fields: [...common, "external_gateway_info", "created_at"] },
  floatingips: { one: "floatingip", title: "floating IP", command: "floating ip", fields: ["id", "description", "project_id", "status", "floating_ip_address", "fixed_ip_address", "floating_network_id", "router_id", "port_id", "revision_number", "tags"] },
  agents: { one: "agent", title: "agent", command: "network agent", fields: ["id", "agent_type", "host", "alive", "admin_state_up", "heartbeat_timestamp"] },
  "security-groups": { one: "security_group", many: "security_groups", title: "security group", command: "security group", fields: ["id", "name", "project_id", "revision_number"] },
};
const listed = Object.keys(kinds);
const title = (kind) => kinds[kind].title ?? kinds[kind].one;

const $ = (id) => document.getElementById(id);

const state = {
  token: "",
  session: 0, // counts tokens: an answer to an earlier one is dropped
  data: null, // kind → objects
  objects: new Map(), // "kind/id" → object
  cut: new Set(), // kinds of which there are more than were read
  fresh: new Map(), // key → "added" | "changed", marked for a while
  history: [], // {time, key, text, gone}
  open: new Set(), // groups that were unfolded
  colours: new Map(), // network id → colour
  query: "",
  selected: "", // "kind/id"
  full: null, // the selected object, whole
  opener: null, // data-at of what had the focus
  paused: false,
  read: null, // Date of the last good answer
  problem: "",
};

// ---- the API

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function get(path, signal) {
  const answer = await fetch(new URL(`../v2.0/${path}`, document.baseURI), {
    headers: state.token ? { "X-Auth-Token": state.token } : {},
    cache: "no-store", credentials: "omit", redirect: "error", signal,
  });
  const body = await answer.json().catch(() => null);
  if (!answer.ok) {
    const said = body?.NeutronError?.message ?? body?.error?.message ?? answer.statusText;
    throw new Refused(answer.status, `${answer.status} ${said}`);
  }
  if (!body) throw new Error("the answer is not JSON");
  return body;
}

// list reads a kind page by page. Of a next link only the query is used, so
// that the token never goes anywhere else.
async function list(kind, signal) {
  const objects = [];
  const many = kinds[kind].many ?? kind;
  let query = new URLSearchParams([["limit", page], ...kinds[kind].fields.map((f) => ["fields", f])]).toString();
  for (;;) {
    const answer = await get(`${kind}?${query}`, signal);
    objects.push(...answer[many]);
    const next = answer[`${many}_links`]?.find((l) => l.rel === "next");
    if (!next || answer[many].length === 0) return { objects, cut: false };
    if (objects.length >= most) return { objects, cut: true };
    query = new URL(next.href, document.baseURI).search.slice(1);
  }
}

let timer = 0;
let looking = null; // AbortController of the look under way

async function look() {
  clearTimeout(timer);
  looking?.abort();
  const mine = (looking = new AbortController());
  const session = state.session;
  const late = setTimeout(() => mine.abort(), 30000);
  // Without a token that is known, one question is enough.
  const known = state.data ? [] : await Promise.allSettled([get("networks?limit=1&fields=id", mine.signal)]);
  const answers = known[0]?.reason?.status === 401 ? known : await Promise.allSettled(listed.map((kind) => list(kind, mine.signal)));
  clearTimeout(late);
  if (session !== state.session || looking !== mine) return; // another look has begun
  looking = null;

  const errors = answers.flatMap((a) => (a.status === "rejected" ? [a.reason] : []));
  if (errors.some((e) => e.status === 401)) return signIn();
  // Agents are for administrators; an extension may be absent.
  const broken = errors.find((e) => e.status !== 403 && e.status !== 404);
  if (broken) {
    state.problem = broken.status ? `The API answers ${broken.message}` : `The API does not answer (${broken.name === "AbortError" ? "too slow" : broken.message})`;
    if (state.read) state.problem += `. What is shown is of ${clock(state.read)}.`;
    status();
  } else {
    state.problem = "";
    state.read = new Date();
    const data = {};
    state.cut.clear();
    listed.forEach((kind, n) => {
      data[kind] = answers[n].value?.objects ?? [];
      if (answers[n].value?.cut) state.cut.add(kind);
    });
    take(data);
    if (state.selected) await inspect();
  }
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (!state.paused && !document.hidden && $("sign-in").hidden) timer = setTimeout(look, interval);
}

// ---- what has changed

const ignored = new Set(["revision_number", "updated_at", "heartbeat_timestamp"]);

function difference(before, after) {
  return Object.keys(after).filter((k) => !ignored.has(k) && JSON.stringify(before[k]) !== JSON.stringify(after[k]));
}

function describe(name, before, after) {
  if (name === "status") return `${before.status} → ${after.status}`;
  if (name === "alive") return after.alive ? "alive again" : "not alive";
  if (name === "binding:host_id") return `host ${before[name] || "none"} → ${after[name] || "none"}`;
  return name;
}

function take(data) {
  const before = state.objects;
  const first = !state.data;
  state.data = data;
  state.objects = new Map();
  for (const kind of listed) for (const o of data[kind]) state.objects.set(`${kind}/${o.id}`, o);
  let same = !first;
  const note = (key, text, mark) => {
    same = false;
    if (first) return;
    state.history.unshift({ time: new Date(), key, text, gone: !mark });
    if (mark) state.fresh.set(key, mark);
  };
  const shown = (key, o) => (key.startsWith("agents/") ? label(key, o) : `${title(key.split("/")[0])} ${label(key, o)}`);
  for (const [key, o] of state.objects) {
    const old = before.get(key);
    if (!old) {
      note(key, `${shown(key, o)} added`, "added");
      continue;
    }
    const names = difference(old, o);
    if (names.length) note(key, `${shown(key, o)}: ${names.map((n) => describe(n, old, o)).join(", ")}`, "changed");
  }
  for (const [key, o] of before) if (!state.objects.has(key)) note(key, `${shown(key, o)} removed`);
  state.history.length = Math.min(state.history.length, 40);
  if (same) return status();
  draw();
  if (state.fresh.size) {
    const marked = state.fresh;
    setTimeout(() => {
      if (state.fresh !== marked) return;
      state.fresh = new Map();
      document.querySelectorAll(".added, .changed").forEach((e) => e.classList.remove("added", "changed"));
    }, flash);
  }
}

// ---- words

const short = (id) => (id ?? "").slice(0, 8);
const clock = (d) => d.toLocaleTimeString([], { hour12: false });
const addresses = (port) => (port.fixed_ips ?? []).map((f) => f.ip_address);
const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const hostOf = (port) => port["binding:host_id"] || "";
// Not every caller is told the host.
const where = (port) => (port["binding:host_id"] === undefined ? "" : hostOf(port) ? `on ${hostOf(port)}` : "no host");

function label(key, o = state.objects.get(key)) {
  const [kind, id] = key.split("/");
  if (!o) return short(id);
  switch (kind) {
    case "agents": return `${o.agent_type} on ${o.host}`;
    case "floatingips": return o.floating_ip_address;
    case "subnets": return o.name ? `${o.name} ${o.cidr}` : o.cidr;
    case "ports": return o.name || `${role(o)} ${addresses(o)[0] ?? short(o.id)}`;
    default: return o.name || short(id);
  }
}

// role says what a port is for, of its device_owner.
function role(port) {
  const owner = port.device_owner ?? "";
  if (owner.startsWith("compute:")) return "instance";
  if (isInterface(port)) return "router interface";
  return { "": "port", "network:router_gateway": "router gateway", "network:dhcp": "DHCP", "trunk:subport": "subport" }[owner] ?? owner;
}

// isInterface: of a router to a network, also of distributed and highly available ones.
const isInterface = (port) => /^network:(router_interface|ha_router_replicated_interface)/.test(port.device_owner ?? "");

function segment(network) {
  const type = network["provider:network_type"];
  if (!type) return "";
  return [type.toUpperCase(), network["provider:segmentation_id"] ?? network["provider:physical_network"]].filter((x) => x != null).join(" ");
}

// ---- elements

// h makes an element. Strings become text nodes; there is no way to hand it markup.
function h(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    e.setAttribute(name, value === true ? "" : String(value));
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== "" && c !== false));
  return e;
}

function shape(status) {
  return ["ACTIVE", "DOWN", "BUILD", "ERROR"].includes(status) ? status.toLowerCase() : "other";
}

// dot shows a status by colour and shape, and says it.
function dot(status, silent) {
  if (status === undefined || status === null) return null;
  return h("span", { class: `dot ${shape(status)}`, title: status }, silent ? null : h("span", { class: "unseen" }, `${status} `));
}

// at makes the attributes of an element that shows the object with this key.
function at(key, classes, more) {
  const marks = [state.fresh.get(key), state.selected === key && "selected", state.selected && related.has(key) && "related"].filter(Boolean);
  return { class: [classes, ...marks].join(" "), "data-key": key, type: "button", ...more };
}

// A word of the status beside the dot, when it is worth one.
const trouble = (o) => [
  o.status && o.status !== "ACTIVE" && o.status !== "N/A" && !(o.status === "DOWN" && o.admin_state_up === false) && h("b", { class: `word ${shape(o.status)}` }, o.status),
  o.admin_state_up === false && h("b", { class: "word" }, "ADMIN DOWN"),
];

// ---- the model: what is beside what

let related = new Set(); // keys beside the selected one

function model() {
  const { networks, subnets, ports, routers, floatingips } = state.data;
  const by = (objects, name) => Map.groupBy(objects, (o) => o[name]);
  const m = {
    subnets: by(subnets, "network_id"), ports: by(ports, "network_id"), devices: by(ports.filter((p) => p.device_id), "device_id"),
    floating: by(floatingips.filter((f) => f.port_id), "port_id"), spare: by(floatingips.filter((f) => !f.port_id), "floating_network_id"),
    interfaces: by(ports.filter(isInterface), "device_id"),
    gateways: new Map(ports.filter((p) => p.device_owner === "network:router_gateway").map((p) => [p.device_id, p])),
  };
  const sorted = [...networks].sort((a, b) => (a.created_at ?? "").localeCompare(b.created_at ?? "") || a.id.localeCompare(b.id));
  m.external = sorted.filter((n) => n["router:external"]);
  m.inner = sorted.filter((n) => !n["router:external"]);
  for (const n of m.inner) if (!state.colours.has(n.id)) state.colours.set(n.id, palette[state.colours.size % palette.length]);
  m.routers = [...routers].sort((a, b) => (a.created_at ?? "").localeCompare(b.created_at ?? "") || a.id.localeCompare(b.id));
  return m;
}

// filter keeps what the words of the query are in, with what makes sense of it:
// the ports of a network that was named, the network of a port.
function filter(m) {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (...texts) => {
    const text = texts.flat().filter(Boolean).join(" ").toLowerCase();
    return words.every((w) => text.includes(w));
  };
  const plain = (o) => [o.id, o.name, o.description, o.project_id, o.status, o.tags, o.admin_state_up === false && "admin down"].flat();
  const netText = (n) => [...plain(n), segment(n), ...(m.subnets.get(n.id) ?? []).flatMap((s) => [s.id, s.name, s.cidr])];
  const portText = (p) => [...plain(p), p.mac_address, addresses(p), role(p), p.device_id, p.device_owner, hostOf(p),
    (m.floating.get(p.id) ?? []).flatMap((f) => [f.id, f.floating_ip_address])].flat();
  const seen = { networks: new Map(), routers: new Set(), active: words.length > 0 };
  const attached = (r) => (m.interfaces.get(r.id) ?? []).map((p) => p.network_id);
  const named = new Set(m.routers.filter((r) => has(plain(r))).map((r) => r.id));
  const wide = new Set(m.routers.filter((r) => named.has(r.id)).flatMap(attached));
  for (const n of [...m.external, ...m.inner]) {
    const all = m.ports.get(n.id) ?? [];
    const whole = !words.length || wide.has(n.id) || has(netText(n));
    const ports = whole ? all : all.filter((p) => has(portText(p)));
    const spare = (m.spare.get(n.id) ?? []).filter((f) => whole || has(plain(f), f.floating_ip_address));
    if (whole || ports.length || spare.length) seen.networks.set(n.id, { ports, spare });
  }
  for (const r of m.routers) {
    if (named.has(r.id) || attached(r).some((n) => seen.networks.has(n)) && m.inner.some((n) => seen.networks.has(n.id) && attached(r).includes(n.id))) seen.routers.add(r.id);
  }
  // Where a router that is shown leads to is shown too.
  for (const r of m.routers) {
    const out = seen.routers.has(r.id) && r.external_gateway_info?.network_id;
    if (out && m.external.some((n) => n.id === out) && !seen.networks.has(out)) seen.networks.set(out, { ports: [], spare: [] });
  }
  return seen;
}

// groups puts what hangs together into one block: routers, and the networks
// they are attached to.
function groups(m, seen) {
  const parent = new Map();
  const root = (x) => {
    while (parent.get(x) !== x) x = parent.get(x);
    return x;
  };
  const routers = m.routers.filter((r) => seen.routers.has(r.id));
  const networks = m.inner.filter((n) => seen.networks.has(n.id));
  for (const o of [...routers, ...networks]) parent.set(o.id, o.id);
  const touched = new Set();
  for (const r of routers) for (const p of m.interfaces.get(r.id) ?? []) {
    if (!parent.has(p.network_id)) continue;
    touched.add(p.network_id);
    parent.set(root(p.network_id), root(r.id));
  }
  const blocks = new Map();
  for (const r of routers) {
    const key = root(r.id);
    if (!blocks.has(key)) blocks.set(key, { routers: [], networks: [] });
    blocks.get(key).routers.push(r);
  }
  const alone = { routers: [], networks: [] };
  for (const n of networks) (touched.has(n.id) ? blocks.get(root(n.id)) : alone).networks.push(n);
  const all = [...blocks.values()];
  if (alone.networks.length) all.push(alone);
  return all;
}

// ---- drawing

function draw() {
  if (!state.data) return;
  $("sign-in").hidden = true;
  $("page").hidden = false;
  const focused = document.activeElement?.closest?.("[data-at], [data-key]");
  const area = focused?.closest("#drawing, #hosts, #changes")?.id; // the detail keeps its own
  const name = focused?.dataset.at ?? focused?.dataset.key;
  const m = model();
  const seen = filter(m);
  related = state.selected ? new Set(beside(state.selected, m).flatMap(([, keys]) => keys)) : new Set();

  const parts = [];
  const external = m.external.filter((n) => seen.networks.has(n.id));
  if (external.length) parts.push(h("section", { class: "external", "aria-label": "External networks" }, external.map((n) => drawNetwork(n, m, seen))));
  const blocks = groups(m, seen).map((b) => drawBlock(b, m, seen));
  if (blocks.length) parts.push(h("div", { class: "blocks" }, blocks));
  if (!parts.length) parts.push(h("p", { class: "empty" }, seen.active ? "Nothing matches the filter." : "No networks yet. Make one: openstack network create NAME"));
  $("drawing").replaceChildren(...parts);
  drawHosts();
  drawChanges();
  drawDetail(m);
  status();
  lines();
  if (area) find(area, name)?.focus({ preventScroll: true });
}

const find = (area, name) => [...$(area).querySelectorAll("[data-at], [data-key]")].find((e) => (e.dataset.at ?? e.dataset.key) === name);

function drawBlock(block, m, seen) {
  const big = (n) => seen.networks.get(n.id).ports.filter(isGuest).length > crowd;
  const networks = [...block.networks].sort((a, b) => big(a) - big(b));
  const e = h("section", { class: "block", "aria-label": block.routers.length ? `Behind ${block.routers.map((r) => r.name || short(r.id)).join(", ")}` : "Networks without a router" },
    h("div", { class: "routers" }, block.routers.length ? block.routers.map((r) => drawRouter(r, m)) : h("p", { class: "hint" }, "no router")),
    networks.length ? h("div", { class: networks.length > 2 ? "networks many" : "networks" }, networks.map((n) => drawNetwork(n, m, seen))) : null);
  const edges = block.routers.reduce((sum, r) => sum + (m.interfaces.get(r.id)?.length ?? 0), 0);
  e.style.setProperty("--lanes", Math.min(edges, 10));
  e.style.setProperty("--columns", networks.some(big) ? 99 : Math.max(1, Math.min(networks.length, 4)));
  return e;
}

function drawRouter(r, m) {
  const info = r.external_gateway_info;
  const gateway = m.gateways.get(r.id);
  const text = info && ((info.external_fixed_ips ?? []).map((f) => f.ip_address).join(", ") || "gateway");
  const hosts = [...new Set([gateway, ...(m.interfaces.get(r.id) ?? [])].filter(Boolean).map(hostOf).filter(Boolean))];
  const published = state.data.floatingips.filter((f) => f.router_id === r.id).length;
  return h("div", { class: "router" },
    info && pill(gateway && `ports/${gateway.id}`, gateway?.status, text, { "data-up": info.network_id, "data-router": r.id, title: "gateway port" }, "gateway"),
    h("button", at(`routers/${r.id}`, "card", { "data-routercard": r.id }),
      h("span", { class: "line" }, dot(r.status), h("span", { class: "icon", "aria-hidden": "true" }, "⇅"), h("span", { class: "name" }, r.name || short(r.id)), trouble(r)),
      h("span", { class: "line small" }, [hosts.length && `on ${hosts.join(", ")}`, published && count(published, "floating IP"), info && info.enable_snat === false && "no SNAT", !info && "no gateway"].filter(Boolean).join(" · ") || "router")));
}

// pill is a small port: of a router, or of DHCP. Without a key it cannot be chosen.
function pill(key, status, text, more, said) {
  const content = [dot(status), h("span", { class: "unseen" }, `${said} `), text];
  return key ? h("button", at(key, "pill", more), content) : h("span", { class: "pill", ...more }, content);
}

// isGuest: not one of the network's own ports, which are drawn elsewhere.
function isGuest(port) {
  return !isInterface(port) && !["network:dhcp", "network:router_gateway", "network:floatingip", "network:distributed", "network:router_ha_interface"].includes(port.device_owner);
}

function drawNetwork(n, m, seen) {
  const { ports, spare } = seen.networks.get(n.id);
  const all = m.ports.get(n.id) ?? [];
  const guests = ports.filter(isGuest).sort((a, b) => label(`ports/${a.id}`, a).localeCompare(label(`ports/${b.id}`, b), undefined, { numeric: true }));
  const outer = n["router:external"];
  const routers = new Set(m.routers.map((r) => r.id));
  const own = [
    ...all.filter((p) => p.device_owner === "network:dhcp").map((p) => pill(`ports/${p.id}`, p.status, `DHCP ${addresses(p).join(", ")}`, {}, "")),
    ...spare.map((f) => pill(`floatingips/${f.id}`, f.status, `unused ${f.floating_ip_address}`, { title: "floating IP without a port" }, "floating IP")),
  ];
  const below = [own.length ? h("div", { class: "own" }, own) : null, drawPorts(n, guests, m, seen)].filter(Boolean);
  const e = h("section", { class: `network${guests.length > crowd ? " big" : ""}`, "aria-label": `Network ${n.name || short(n.id)}`, "data-network": n.id },
    h("div", { class: "taps" }, all.filter((p) => isInterface(p) && routers.has(p.device_id)).map((p) =>
      pill(`ports/${p.id}`, p.status, addresses(p).join(", ") || short(p.id), { "data-down": p.device_id, "data-colour": state.colours.get(n.id), title: "router interface" }, "router interface"))),
    h("button", at(`networks/${n.id}`, "bar", { "data-bar": n.id }),
      h("span", { class: "line" }, dot(n.status), h("span", { class: "name" }, n.name || short(n.id)), trouble(n),
        outer && h("b", { class: "word plain" }, "EXTERNAL"), n.shared && h("b", { class: "word plain" }, "SHARED"), h("span", { class: "end" }, segment(n))),
      h("span", { class: "line small" }, h("span", {}, (m.subnets.get(n.id) ?? []).map((s) => s.cidr).join(", ") || "no subnet"),
        h("span", { class: "end" }, all.some(isGuest) && count(all.filter(isGuest).length, "port")))),
    below.length ? h("div", { class: "below" }, below) : null);
  if (!outer) e.style.setProperty("--colour", state.colours.get(n.id));
  return e;
}

function drawPorts(n, ports, m, seen) {
  if (ports.length <= (seen.active ? 3 * crowd : crowd)) return ports.length ? h("ul", { class: "ports" }, ports.map((p) => drawPort(p, m))) : null;
  const hosts = [...Map.groupBy(ports, hostOf)].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
  return h("div", { class: "groups" }, hosts.map(([host, members]) => {
    const id = `${n.id} ${host}`;
    const open = state.open.has(id);
    const tally = [...Map.groupBy(members, (p) => p.status)].map(([s, of]) => [s, of.length]);
    return h("div", { class: "group" },
      h("button", { type: "button", class: "fold", "aria-expanded": String(open), "data-fold": id, "data-at": `fold ${id}` },
        h("span", { class: "line" }, h("span", { class: "arrow", "aria-hidden": "true" }, open ? "▾" : "▸"), h("span", { class: "name" }, host || where(members[0]) || "on all hosts"),
          h("span", { class: "end small" }, count(members.length, "port"), tally.map(([s, of]) => [" · ", dot(s, true), ` ${of} ${s}`]).flat())),
        open ? null : h("span", { class: "dots", "aria-hidden": "true" }, members.map((p) =>
          h("span", { class: `square ${shape(p.status)} ${state.fresh.get(`ports/${p.id}`) ?? ""}`, title: `${label(`ports/${p.id}`, p)} ${addresses(p).join(" ")} ${p.status}`, "data-key": `ports/${p.id}` })))),
      open ? h("ul", { class: "ports" }, members.map((p) => drawPort(p, m))) : null);
  }));
}

function drawPort(p, m) {
  const siblings = p.device_id ? (m.devices.get(p.device_id) ?? []).length : 0;
  const name = p.name || (role(p) === "instance" ? `instance ${short(p.device_id)}` : `${role(p)} ${short(p.id)}`);
  return h("li", {},
    h("button", at(`ports/${p.id}`, "card"),
      h("span", { class: "line" }, dot(p.status), h("span", { class: "name", title: name }, name)),
      h("span", { class: "line mono" }, addresses(p).join(" ") || "no address"),
      h("span", { class: "line small" }, h("span", { class: "rest" }, [where(p), siblings > 1 && role(p) === "instance" && `1 of ${siblings} ports`].filter(Boolean).join(" · ")), h("span", { class: "end line" }, trouble(p)))),
    (m.floating.get(p.id) ?? []).map((f) => h("button", at(`floatingips/${f.id}`, "floating"), dot(f.status), h("span", { class: "unseen" }, "floating IP "), `↔ ${f.floating_ip_address}`, trouble(f))));
}

// lines draws the wires: from a router's gateway up to its external network,
// from a router down to its interfaces, along the gaps between what is drawn.
function lines() {
  const svg = $("lines");
  const origin = svg.getBoundingClientRect(); // it scrolls with what is drawn
  const box = (e) => {
    const r = e.getBoundingClientRect();
    return { x: r.left - origin.left + r.width / 2, left: r.left - origin.left, top: r.top - origin.top, bottom: r.bottom - origin.top };
  };
  const wires = [];
  const wire = (points, colour, keys) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", round(points));
    path.setAttribute("class", "wire");
    if (colour) path.style.stroke = colour;
    // Of a router its own wires are lit, of what is in a network the ways into that.
    const lit = keys.includes(state.selected) || !/^(routers|networks)/.test(state.selected) && keys.some((k) => related.has(k));
    if (state.selected && !lit) path.classList.add("dim");
    wires.push(path);
  };
  const drawing = $("drawing");
  const bars = new Map([...drawing.querySelectorAll(".external [data-bar]")].map((e) => [e.dataset.bar, e]));
  const blocks = [...drawing.querySelectorAll(".block")];
  const firstRow = Math.min(...blocks.map((b) => box(b).top));
  const outers = [...bars.keys()];
  for (const tap of drawing.querySelectorAll("[data-up]")) {
    const bar = bars.get(tap.dataset.up);
    if (!bar) continue;
    const from = box(tap);
    const block = box(tap.closest(".block"));
    const to = box(bar);
    const gutter = 5 + 5 * (outers.indexOf(tap.dataset.up) % 3);
    const points = block.top < firstRow + 4
      ? [[from.x, from.top], [from.x, to.bottom]]
      : [[from.x, from.top], [from.x, block.top - 9], [gutter, block.top - 9], [gutter, (to.top + to.bottom) / 2], [to.left, (to.top + to.bottom) / 2]];
    wire(points, "", [`routers/${tap.dataset.router}`, `networks/${tap.dataset.up}`, tap.dataset.key]);
  }
  for (const block of blocks) {
    const ends = [];
    const networks = [...block.querySelectorAll(".network")];
    const first = Math.min(...networks.map((e) => box(e).top));
    for (const card of block.querySelectorAll("[data-routercard]")) {
      const from = box(card);
      const own = [...drawing.querySelectorAll("[data-down]")].filter((t) => t.dataset.down === card.dataset.routercard)
        .map((tap) => ({ tap, to: box(tap), row: box(tap.closest(".network")).top })).sort((a, b) => (b.row > first + 4) - (a.row > first + 4) || a.to.x - b.to.x);
      const step = Math.min(14, 100 / Math.max(1, own.length));
      own.forEach((end, n) => ends.push({ ...end, card, from, x: own.length === 1 && Math.abs(end.to.x - from.x) < 20 ? end.to.x : from.x + (n - (own.length - 1) / 2) * step }));
    }
    // The farther to the side, the higher the lane: then wires of one router do not cross.
    const lanes = [...ends].filter((e) => e.x !== e.to.x).sort((a, b) => Math.abs(b.to.x - b.x) - Math.abs(a.to.x - a.x));
    const bottom = Math.max(...ends.map((e) => e.from.bottom));
    for (const end of ends) {
      const lane = bottom + 12 + 7 * (Math.max(0, lanes.indexOf(end)) % 10);
      const down = box(end.card.closest(".block")).left + 5 + 4 * (lanes.indexOf(end) % 4);
      const over = end.to.top - 5 - 5 * (lanes.indexOf(end) % 4);
      const points = end.x === end.to.x ? [[end.x, end.from.bottom], [end.x, end.to.top]]
        : end.row <= first + 4 ? [[end.x, end.from.bottom], [end.x, lane], [end.to.x, lane], [end.to.x, end.to.top]]
          : [[end.x, end.from.bottom], [end.x, lane], [down, lane], [down, over], [end.to.x, over], [end.to.x, end.to.top]];
      const net = end.tap.closest(".network").dataset.network;
      wire(points, end.tap.dataset.colour, [`routers/${end.card.dataset.routercard}`, `networks/${net}`, end.tap.dataset.key]);
    }
  }
  svg.replaceChildren(...wires);
}

// round joins points by straight lines with rounded corners.
function round(points) {
  let d = `M${points[0][0]},${points[0][1]}`;
  for (let n = 1; n < points.length; n++) {
    const [x, y] = points[n];
    if (n === points.length - 1) return `${d}L${x},${y}`;
    const [[px, py], [nx, ny]] = [points[n - 1], points[n + 1]];
    const before = Math.hypot(x - px, y - py);
    const after = Math.hypot(nx - x, ny - y);
    const r = Math.min(8, before / 2, after / 2);
    if (r < 0.5) {
      d += `L${x},${y}`;
      continue;
    }
    d += `L${x - ((x - px) / before) * r},${y - ((y - py) / before) * r}Q${x},${y} ${x + ((nx - x) / after) * r},${y + ((ny - y) / after) * r}`;
  }
  return d;
}

// ---- the side panel

function drawHosts() {
  const { agents, ports } = state.data;
  const bound = Map.groupBy(ports.filter(hostOf), hostOf);
  const byHost = Map.groupBy(agents, (a) => a.host);
  const names = [...new Set([...byHost.keys(), ...bound.keys()])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const rows = names.map((name) => {
    const own = (byHost.get(name) ?? []).sort((a, b) => a.agent_type.localeCompare(b.agent_type));
    const dead = own.filter((a) => !a.alive);
    const here = bound.get(name) ?? [];
    const wrong = here.filter((p) => p.status !== "ACTIVE").length;
    return h("div", { class: "host" },
      h("div", { class: "line" }, own.length ? dot(dead.length ? "ERROR" : "ACTIVE", true) : null,
        h("button", { type: "button", class: "name link", "data-filter": name, "data-at": `host ${name}`, title: "Show the ports on this host only" }, name),
        h("span", { class: "small" }, own.length ? (dead.length ? `${dead.length} of ${own.length} agents dead` : "alive") : ""),
        h("span", { class: "end small" }, count(here.length, "port"), wrong ? `, ${wrong} not ACTIVE` : "")),
      h("div", { class: "agents" }, own.map((a) => h("button", at(`agents/${a.id}`, `pill${a.alive ? "" : " dead"}`, { title: `heartbeat ${a.heartbeat_timestamp} UTC` }),
        dot(a.alive ? "ACTIVE" : "ERROR", true), h("span", { class: "unseen" }, a.alive ? "alive: " : "dead: "), a.agent_type.replace(/ agent$/i, ""), a.admin_state_up === false ? " (admin down)" : ""))));
  });
  $("hosts").replaceChildren(...(rows.length ? rows : [h("p", { class: "hint" }, "None to be seen. Only administrators see agents and hosts.")]));
}

function drawChanges() {
  const rows = state.history.map((c) => h("li", {}, h("time", {}, clock(c.time)), " ",
    c.gone || !state.objects.has(c.key) ? c.text : h("button", { type: "button", class: "link", "data-key": c.key }, c.text)));
  $("changes").replaceChildren(...(rows.length ? rows : [h("li", { class: "hint" }, "None since the page was opened.")]));
}

function status() {
  const { data } = state;
  if (data) {
    const parts = [[data.networks, "network"], [data.routers, "router"], [data.ports, "port"], [data.floatingips, "floating IP"]]
      .map(([l, one]) => count(l.length, one));
    const wrong = data.ports.filter((p) => p.status === "ERROR").length;
    const down = data.ports.filter((p) => p.status === "DOWN").length;
    $("summary").textContent = parts.join(" · ") + (wrong ? ` · ${wrong} in ERROR` : "") + (down ? ` · ${down} DOWN` : "");
  }
  const notes = [state.problem, ...[...state.cut].map((k) => `There are more than ${most} ${k}; the rest is not drawn.`)].filter(Boolean);
  $("problem").textContent = notes.join(" ");
  $("problem").hidden = !notes.length;
  document.body.classList.toggle("stale", Boolean(state.problem));
  $("freshness").textContent = state.read ? `${state.paused ? "paused, " : ""}as of ${clock(state.read)}` : "";
}

// beside returns what an object has to do with: [heading, keys] pairs.
function beside(key, m) {
  const [kind, id] = key.split("/");
  const o = state.objects.get(key);
  const { ports, routers, floatingips, agents, networks, subnets } = state.data;
  if (!o) return [];
  const keys = (k, objects) => objects.map((x) => `${k}/${x.id}`);
  const interfaces = m.interfaces;
  switch (kind) {
    case "networks": {
      const own = m.ports.get(id) ?? [];
      const near = new Set([...own.filter(isInterface).map((p) => p.device_id), ...routers.filter((r) => r.external_gateway_info?.network_id === id).map((r) => r.id)]);
      return [["Subnets", keys("subnets", m.subnets.get(id) ?? [])], ["Routers", keys("routers", routers.filter((r) => near.has(r.id)))],
        ["Ports", keys("ports", own)], ["Floating IPs", keys("floatingips", floatingips.filter((f) => f.floating_network_id === id))]];
    }
    case "subnets":
      return [["Network", keys("networks", networks.filter((n) => n.id === o.network_id))], ["Ports", keys("ports", (m.ports.get(o.network_id) ?? []).filter((p) => p.fixed_ips?.some((f) => f.subnet_id === id)))]];
    case "ports":
      return [["Network", keys("networks", networks.filter((n) => n.id === o.network_id))],
        ["Subnets", keys("subnets", subnets.filter((s) => o.fixed_ips?.some((f) => f.subnet_id === s.id)))],
        ["Router", keys("routers", routers.filter((r) => r.id === o.device_id))],
        ["Floating IPs", keys("floatingips", m.floating.get(id) ?? [])],
        ["Other ports of its device", keys("ports", (o.device_id && m.devices.get(o.device_id) || []).filter((p) => p.id !== id))],
        ["Security groups", (o.security_groups ?? []).map((g) => `security-groups/${g}`)],
        ["Agents of its host", keys("agents", agents.filter((a) => a.host === hostOf(o)))]];
    case "routers": {
      const own = [m.gateways.get(id), ...(interfaces.get(id) ?? [])].filter(Boolean);
      const near = new Set([o.external_gateway_info?.network_id, ...own.map((p) => p.network_id)]);
      return [["Networks", keys("networks", networks.filter((n) => near.has(n.id)))], ["Ports", keys("ports", own)], ["Floating IPs", keys("floatingips", floatingips.filter((f) => f.router_id === id))]];
    }
    case "floatingips":
      return [["Port", keys("ports", ports.filter((p) => p.id === o.port_id))], ["Router", keys("routers", routers.filter((r) => r.id === o.router_id))], ["Network", keys("networks", networks.filter((n) => n.id === o.floating_network_id))]];
    case "security-groups":
      return [["Ports", keys("ports", ports.filter((p) => p.security_groups?.includes(id)))]];
    case "agents":
      return [["Agents of the same host", keys("agents", agents.filter((a) => a.host === o.host && a.id !== id))], ["Ports on its host", keys("ports", ports.filter((p) => hostOf(p) === o.host))]];
  }
  return [];
}

function drawDetail(m = model()) {
  const box = $("detail");
  const key = state.selected;
  if (!key) {
    box.hidden = true;
    return box.replaceChildren();
  }
  const hadFocus = box.contains(document.activeElement) && document.activeElement.dataset.at;
  const scrolled = box.querySelector("pre.json")?.scrollTop ?? 0;
  const [kind, id] = key.split("/");
  const o = state.full?.key === key ? state.full.object : state.objects.get(key);
  const gone = state.full?.key === key && state.full.error;
  const few = 24;
  box.hidden = false;
  box.replaceChildren(...[
    h("div", { class: "line head" }, dot(o?.status ?? (kind === "agents" && o ? (o.alive ? "ACTIVE" : "ERROR") : null), kind === "agents"),
      h("h2", { tabindex: "-1", "data-at": "title" }, h("span", { class: "small" }, `${title(kind)} `), label(key)),
      h("button", { type: "button", class: "close", "data-close": true, "data-at": "close", "aria-label": "Close (Esc)" }, "✕")),
    gone ? h("p", { class: "gone" }, gone) : null,
    h("dl", { class: "beside" }, beside(key, m).filter(([, keys]) => keys.length).map(([heading, keys]) => h("div", {}, h("dt", {}, heading),
      h("dd", {}, keys.slice(0, few).map((k) => h("button", { type: "button", class: "pill", "data-key": k, "data-at": `beside ${k}` }, dot(state.objects.get(k)?.status, true), label(k))),
        keys.length > few ? ` and ${keys.length - few} more` : null)))),
    h("pre", { class: "command" }, `openstack ${kinds[kind].command ?? kinds[kind].one} show ${id}`),
    h("pre", { class: "json", tabindex: "0", "aria-label": "JSON", "data-at": "json" }, o ? JSON.stringify(o, null, 2) : ""),
  ].filter(Boolean));
  box.querySelector("pre.json").scrollTop = scrolled;
  if (hadFocus) [...box.querySelectorAll("[data-at]")].find((e) => e.dataset.at === hadFocus)?.focus({ preventScroll: true });
}

// inspect reads the selected object whole.
async function inspect() {
  const key = state.selected;
  const [kind, id] = key.split("/");
  const session = state.session;
  let full;
  try {
    full = { key, object: (await get(`${kind}/${encodeURIComponent(id)}`))[kinds[kind].one] };
  } catch (e) {
    if (e.status === 401) return void (session === state.session && signIn());
    full = { key, object: state.full?.key === key ? state.full.object : undefined, error: e.status === 404 ? "It is gone, or not yours to see." : e.message };
  }
  if (key !== state.selected || session !== state.session) return;
  const same = JSON.stringify(full) === JSON.stringify(state.full);
  state.full = full;
  if (!same) drawDetail();
}

function select(key, opener) {
  if (!Object.hasOwn(kinds, key.split("/")[0])) return;
  state.selected = key;
  state.opener = opener ?? state.opener;
  history.replaceState(null, "", `#${key}`);
  draw();
  const head = $("detail").querySelector("h2");
  head?.focus({ preventScroll: true });
  $("detail").scrollIntoView?.({ block: "nearest" });
  inspect();
}

function unselect() {
  if (!state.selected) return;
  state.selected = "";
  state.full = null;
  history.replaceState(null, "", location.pathname + location.search);
  draw();
  (state.opener && find("drawing", state.opener) || $("filter")).focus({ preventScroll: true });
  state.opener = null;
}

// ---- the token

function signIn() {
  const refused = Boolean(state.token);
  state.token = "";
  state.session++;
  clearTimeout(timer);
  forget();
  $("page").hidden = true;
  $("sign-in").hidden = false;
  $("summary").textContent = $("freshness").textContent = "";
  $("problem").textContent = refused ? "Keystone does not know this token (any more)." : "";
  $("problem").hidden = !refused;
  $("token").focus();
}

// forget drops what was read: the next caller may see less.
function forget() {
  Object.assign(state, { data: null, objects: new Map(), fresh: new Map(), history: [], full: null, read: null, problem: "" });
  $("drawing").replaceChildren();
  $("lines").replaceChildren();
  for (const id of ["hosts", "changes", "detail"]) $(id).replaceChildren();
}

// ---- what people do

document.addEventListener("click", (event) => {
  const e = event.target.closest("[data-key], [data-fold], [data-filter], [data-close]");
  if (!e) return;
  if (e.dataset.key) select(e.dataset.key, e.closest("main") ? e.dataset.key : null);
  else if (e.dataset.fold) {
    if (!state.open.delete(e.dataset.fold)) state.open.add(e.dataset.fold);
    draw();
  } else if (e.dataset.filter !== undefined) {
    state.query = $("filter").value = state.query === e.dataset.filter ? "" : e.dataset.filter;
    draw();
  } else unselect();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (document.activeElement === $("filter") && state.query) return; // the field empties itself
    unselect();
  } else if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    $("filter").focus();
  }
});

$("filter").addEventListener("input", () => {
  state.query = $("filter").value;
  draw();
});

$("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  $("pause").textContent = state.paused ? "Resume" : "Pause";
  status();
  if (!state.paused) look();
  else clearTimeout(timer);
});

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  if (!/^[\x21-\x7e]+$/.test(token)) {
    $("problem").textContent = "A token is one word of plain letters, digits and signs.";
    $("problem").hidden = false;
    return;
  }
  state.token = token;
  state.session++;
  $("sign-in").hidden = true;
  $("problem").hidden = true;
  look();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!state.paused && $("sign-in").hidden) look();
});

window.addEventListener("hashchange", () => {
  const key = decodeHash();
  if (key && key !== state.selected && state.data) select(key);
});

function decodeHash() {
  const key = location.hash.slice(1);
  return /^[a-z-]+\/[0-9A-Za-z-]+$/.test(key) && Object.hasOwn(kinds, key.split("/")[0]) ? key : "";
}

new ResizeObserver(() => requestAnimationFrame(lines)).observe($("drawing"));

$("legend").replaceChildren(...["ACTIVE", "BUILD", "DOWN", "ERROR"].map((s) => h("span", { class: "line" }, dot(s, true), s)));
state.selected = decodeHash();
look();
