"""Colours and styles: of charts wherever they are, of pages in two themes, of notebooks whose theme is not known."""

from __future__ import annotations

# Colours of kinds tell apart for people who confuse red and green, in both themes; tests compute their contrast.
LIGHT = {
    "page": "#ffffff", "track": "#edf0f4", "ink": "#1b2330", "muted": "#566072", "line": "#d8dde5", "ours": "#0b62b4",
    "peer": "#c05a00", "third": "#0a7a5c", "fourth": "#8a3ea0", "base": "#737d8c", "warn": "#fff2cc",
    "warn-ink": "#5a3c00",
}  # fmt: skip
DARK = {
    "page": "#14181f", "track": "#232a35", "ink": "#e7eaf0", "muted": "#a2adbd", "line": "#38414f", "ours": "#5aaef5",
    "peer": "#f09a4b", "third": "#4cc79a", "fourth": "#d39be3", "base": "#8e98a8", "warn": "#413000",
    "warn-ink": "#ffe1a0",
}  # fmt: skip
# On white and on black pages alike; text has the colour of the notebook.
ANYWHERE = {
    "page": "transparent", "track": "#8080802e", "ink": "currentColor", "muted": "currentColor", "line": "#80808066",
    "ours": "#2b82d4", "peer": "#cb6618", "third": "#178f6d", "fourth": "#a862c6", "base": "#7d8694",
}  # fmt: skip

_CHARTS = """
.fq svg{display:block;overflow:visible;font:12px/1.2 system-ui,sans-serif}
.fq .framed{margin:30px 10px 0 48px;width:calc(100% - 60px)}
.fq text{fill:var(--ink)}.fq .small{fill:var(--muted);font-size:11px}
.fq ul.bars{list-style:none;margin:0;padding:0;font-size:13px;line-height:1.3}
.fq .bars li{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:0 10px;margin:0 0 7px}
.fq .bars svg{grid-column:1/-1}.fq .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.fq .told{font-variant-numeric:tabular-nums;white-space:nowrap}
.fq .track{fill:var(--track)}.fq line{stroke:var(--line)}.fq .axis,.fq .roof{stroke:var(--muted)}
.fq .mark{stroke:var(--ink);stroke-width:1.5}
.fq path.level{stroke:var(--peer);stroke-width:2}.fq path.dense{stroke-width:.7}
.fq path.guide{stroke:var(--peer);opacity:.45}
.fq .halo{paint-order:stroke;stroke:var(--page);stroke-width:4}
.fq .joined{stroke-width:2}.fq path{stroke:var(--page);stroke-width:1}.fq path.bin{stroke:none}
"""
_KINDS = "".join(
    f".fq .{kind}{{fill:var(--{kind})}}.fq .joined.{kind}{{stroke:var(--{kind})}}"
    for kind in ("ours", "peer", "third", "fourth", "base")
)
_LEGEND = """
.fq ul.legend{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;margin:0 0 8px;padding:0;font-size:13px}
.fq ul.legend li{display:flex;align-items:center;gap:5px;margin:0}
"""
CHARTS = (_CHARTS + _KINDS + _LEGEND).replace("\n", "")

_PAGE = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1100px;margin:0 auto;padding:24px 16px 48px;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px}h2{font-size:1.2rem;margin:40px 0 4px}
h3{font-size:1rem;margin:0 0 8px}p{margin:0 0 12px;max-width:72ch}.muted,footer,figcaption{color:var(--muted)}
footer{margin-top:48px;font-size:.85rem}figure{margin:16px 0 0}figcaption{font-size:.85rem;margin-top:6px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 16px;margin:12px 0 0;font-size:.9rem}
dt{color:var(--muted)}dd{margin:0}
.banner{background:var(--warn);color:var(--warn-ink);border-radius:6px;padding:10px 14px;margin:16px 0;max-width:none}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:28px 32px;margin-top:16px}
.cards figure{margin:0}.cards.two{grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))}
section>figure>.bars{max-width:680px}
.scroll{overflow-x:auto;margin-top:12px;border-top:1px solid var(--line);border-bottom:1px solid var(--line);
background:linear-gradient(90deg,var(--page) 30%,transparent) 0/40px 100% no-repeat local,
linear-gradient(270deg,var(--page) 30%,transparent) 100%/40px 100% no-repeat local,
linear-gradient(90deg,var(--line),transparent) 0/14px 100% no-repeat scroll,
linear-gradient(270deg,var(--line),transparent) 100%/14px 100% no-repeat scroll}
table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 9px;text-align:left;vertical-align:top;white-space:nowrap}
td.n,th.n{text-align:right}tbody tr+tr>*{border-top:1px solid var(--line)}
tbody th{font-weight:400;white-space:normal}
tbody th span{display:block;width:max-content;max-width:min(24rem,42vw);overflow-wrap:anywhere}
td.long{white-space:normal;min-width:14rem}
thead th{border-bottom:1px solid var(--muted);vertical-align:bottom;padding:0}
thead button{all:unset;box-sizing:border-box;width:100%;padding:7px 9px;cursor:pointer;font-weight:600}
thead button:hover{text-decoration:underline}:focus-visible{outline:2px solid var(--ours)!important;outline-offset:-2px}
thead button:after{content:"";display:inline-block;width:1em;text-align:center}
[aria-sort=ascending] button:after{content:"\\25B4"}[aria-sort=descending] button:after{content:"\\25BE"}
"""


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


PAGE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media(prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}" + (_PAGE + CHARTS).replace("\n", "")
)
NOTEBOOK = (
    f".fq{{{_variables(ANYWHERE)}max-width:460px;font:13px/1.45 system-ui,sans-serif}}"
    ".fq .small,.fq .muted{opacity:.75}.fq p{margin:0 0 4px}.fq pre{white-space:pre-wrap;font-size:11px;margin:6px 0 0}"
    ".fq figure{margin:10px 0 0}.fq figcaption{font-size:12px;opacity:.75}.fq h3{font-size:13px;margin:0 0 4px}"
    + CHARTS
)

# Sorts a table by the column whose button was pressed, upwards first; cells without a value stay at the end.
SORTING = """
for(const b of document.querySelectorAll("thead button"))b.addEventListener("click",()=>{
const h=b.parentElement,i=h.cellIndex,t=h.closest("table").tBodies[0],up=h.getAttribute("aria-sort")!="ascending";
for(const o of h.parentElement.cells)o.setAttribute("aria-sort","none");
h.setAttribute("aria-sort",up?"ascending":"descending");
const v=r=>r.cells[i].dataset.v??r.cells[i].textContent,n=h.classList.contains("n");
const e=s=>n?s===""||isNaN(s):s==="";
[...t.rows].sort((p,q)=>{const a=v(p),c=v(q);if(e(a)||e(c))return e(a)-e(c);
const d=n?(+a>+c)-(+a<+c):a.localeCompare(c,undefined,{numeric:true});return up?d:-d}).forEach(r=>t.append(r))});
""".strip().replace("\n", "")
