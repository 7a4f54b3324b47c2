"""Style of `report.html`: system fonts only, quiet colours, prints without losing the bars."""

from __future__ import annotations

STYLE = """
:root { --ink:#1d1f24; --quiet:#5c6069; --line:#d9d5cb; --paper:#f6f4ef; --card:#fff; --accent:#2f5d8a;
    --warn:#8f3216 }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink);
    font:16px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif }
main,footer { max-width:1120px; margin:0 auto; padding:1.5rem }
h1 { margin:.2rem 0 }
h2 { margin:2rem 0 .6rem; color:var(--accent) }
h3 { margin:.2rem 0 .5rem }
.quiet { color:var(--quiet); font-weight:400; font-size:.9em }
p { margin:.4rem 0; max-width:75ch }
.notice { border-left:5px solid var(--warn); background:var(--card); padding:.8rem 1rem; max-width:none }
.warn { background:#fbeee6; border:1px solid #e3b8a4; border-radius:8px; padding:.2rem 1.2rem .6rem }
.warn h2 { color:var(--warn); margin-top:.6rem }
.row { display:flex; flex-wrap:wrap; gap:1.4rem; align-items:flex-start }
.text { flex:1 1 24rem }
figure { margin:0 }
figure img { display:block; width:200px; height:200px; border:1px solid var(--line); background:#fff;
    border-radius:4px }
figure.pixels img { image-rendering:pixelated }
figure.large img { width:300px; height:300px }
figure.small img { width:148px; height:148px }
figcaption { margin-top:.3rem; max-width:300px }
.words { flex:1 1 20rem }
dl { display:grid; grid-template-columns:max-content 1fr; gap:.2rem 1rem; margin:0 }
dt { color:var(--quiet) }
dd { margin:0 }
.tag { background:#fbeee6; color:var(--warn); border-radius:4px; padding:0 .4em; font-size:.85em;
    font-weight:400 }
.lists { display:grid; grid-template-columns:repeat(auto-fit,minmax(310px,1fr)); gap:1rem }
.list,article { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:1rem }
article { margin:1rem 0 }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th,td { text-align:left; padding:.25rem .4rem; border-bottom:1px solid var(--line); vertical-align:middle }
thead th { color:var(--quiet); font-weight:600; font-size:.85em }
td { overflow-wrap:anywhere }
.list th,.list td { padding:.25rem }
.list .tag { background:#eceae4; color:var(--quiet); font-size:.7em; white-space:nowrap;
    overflow-wrap:normal }
.list td:first-child,.list td:nth-child(n+4) { white-space:nowrap; overflow-wrap:normal }
.list td:nth-child(n+4),.list th:nth-child(n+4) { text-align:right }
.thumb { width:52px; height:52px; display:block; border-radius:4px }
.verdict { font-size:.8em; font-weight:600; border-radius:4px; padding:.1em .5em; background:#eceae4;
    color:var(--quiet) }
.verdict.kept { background:#e2ecf5; color:var(--accent) }
.verdict.not { background:#fbeee6; color:var(--warn) }
.bar { display:grid; grid-template-columns:minmax(9rem,21rem) 1fr 3rem; gap:.6rem; align-items:center;
    margin:.15rem 0 }
.track { height:10px; background:#eceae4; border-radius:5px; overflow:hidden }
.fill { display:block; height:100%; background:#8fb0cf }
.bar.strong .fill { background:var(--accent) }
.bar.strong .name { font-weight:600 }
.value { text-align:right; font-variant-numeric:tabular-nums }
code,pre { font-family:ui-monospace,Consolas,monospace; font-size:.85em; overflow-wrap:anywhere }
pre { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:1rem; overflow:auto;
    white-space:pre-wrap }
footer { border-top:1px solid var(--line); color:var(--warn) }
.hidden { position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%) }
@media print {
  body { background:#fff; font-size:11pt }
  main,footer { max-width:none; padding:0 }
  .list,article,figure,tr,.warn { break-inside:avoid }
  h2,h3 { break-after:avoid }
  .fill,.track,.verdict,.tag,.warn { print-color-adjust:exact; -webkit-print-color-adjust:exact }
  .lists { grid-template-columns:repeat(3,1fr); font-size:8.5pt }
  .thumb { width:34px; height:34px }
 }
"""
