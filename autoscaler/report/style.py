"""The style sheet of ``report.html``: light and dark by the reader's setting, no outside resource."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f4f6f8; --card: #ffffff; --ink: #17202b; --muted: #566372; --line: #dfe4ea; --soft: #eef1f5;
  --busy: #12807a; --bought: #c3cfdd; --bought-edge: #7488a0; --demanded: #c2410c;
  --good: #12713f; --bad: #b42318; --spot: #7a5af0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e1319; --card: #161d26; --ink: #e7ecf2; --muted: #9aa7b6; --line: #2a3542; --soft: #1e2732;
    --busy: #2fb5a8; --bought: #35455a; --bought-edge: #8298b3; --demanded: #ff9a57;
    --good: #56c88a; --bad: #ff7a70; --spot: #a692ff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 48px; }
header p { margin: 4px 0 0; color: var(--muted); }
.brand { font-weight: 700; letter-spacing: .04em; color: var(--busy); text-transform: uppercase; font-size: 13px; }
h1 { font-size: 26px; line-height: 1.25; margin: 4px 0 0; }
h2 { font-size: 17px; margin: 0 0 2px; }
h3 { font-size: 15px; margin: 16px 0 4px; }
.lead { font-size: 16px; margin: 16px 0 0; max-width: 80ch; }
.note { border-left: 3px solid var(--demanded); padding: 6px 12px; margin: 14px 0 0; background: var(--card); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(225px, 1fr)); gap: 12px; margin: 22px 0 0;
  padding: 0; list-style: none; }
.tiles li, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tiles li { padding: 12px 14px; }
.tiles .name { color: var(--muted); font-size: 13px; }
.tiles .big { display: block; font-size: 25px; font-weight: 650; line-height: 1.25; }
.tiles .more { color: var(--muted); font-size: 13px; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 650; }
section { padding: 18px 20px; margin: 16px 0 0; }
section > p { margin: 0 0 10px; color: var(--muted); max-width: 95ch; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px; }
.pair > section { min-width: 0; }
.scroll { overflow-x: auto; }
svg { display: block; width: 100%; height: auto; }
svg.wide { min-width: 680px; }
svg text { fill: var(--muted); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg text.strong { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; }
.axis { stroke: var(--bought-edge); stroke-width: 1; }
.busy { fill: var(--busy); } .bought { fill: var(--bought); } .spot { fill: var(--spot); }
.bought-line { fill: none; stroke: var(--bought-edge); stroke-width: 1.2; }
.demanded-line { fill: none; stroke: var(--demanded); stroke-width: 1.6; }
.boot { fill: var(--demanded); }
.mark { stroke: var(--demanded); stroke-width: 1.4; stroke-dasharray: 4 3; }
.hover { fill: transparent; } .hover:hover { fill: var(--ink); fill-opacity: .08; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 6px 0 8px; padding: 0; list-style: none;
  font-size: 13px; color: var(--muted); }
.legend span { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; }
.legend .rule { height: 3px; vertical-align: 3px; border-radius: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding: 0 0 6px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: 13px; color: var(--muted); font-weight: 600; }
tbody th { color: var(--ink); font-weight: 500; font-size: inherit; }
tr:last-child > * { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.bars { width: 30%; min-width: 110px; padding-top: 10px; }
.bar { height: 12px; border-radius: 3px; background: var(--busy); min-width: 2px; }
.bar.idle { background: var(--bought-edge); }
.small { color: var(--muted); font-size: 13px; }
code { font: 13px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
details { margin: 16px 0 0; color: var(--muted); } summary { cursor: pointer; }
footer { margin: 22px 0 0; color: var(--muted); font-size: 13px; }
@media (max-width: 520px) { .pair { grid-template-columns: 1fr; } main { padding: 18px 12px 36px; } }
@media print { body { background: #fff; } section, .tiles li { break-inside: avoid; } }
"""
