/** The page's whole style. Colours have a contrast of at least 4.5 to their ground in both schemes; 3 for marks. */
export const STYLE = `
:root{color-scheme:light dark;--ground:#f7f8f7;--sheet:#fff;--ink:#1d2522;--soft:#5b6661;--rule:#dfe4e1;--grid:#e9edeb;--main:#1f6f5c;--second:#7a5a17;--good:#1c6b45;--good-ground:#e3f3ea;--warn:#855000;--warn-ground:#fdf0d8;--bad:#a8231d;--bad-ground:#fbe6e4}
@media (prefers-color-scheme:dark){:root{--ground:#131816;--sheet:#1a211e;--ink:#e4eae7;--soft:#9aa7a1;--rule:#2f3935;--grid:#262f2b;--main:#5cc0a4;--second:#d9b15f;--good:#7fd3a6;--good-ground:#17352a;--warn:#efbe66;--warn-ground:#3a2d12;--bad:#f59a92;--bad-ground:#43201e}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:2.5rem;padding-bottom:.5rem}
h1{font-size:1.5rem;font-weight:600;letter-spacing:-.01em;margin:0}
h2{font-size:1.35rem;font-weight:600;margin:0;overflow-wrap:anywhere}
h3{font-size:1rem;font-weight:600;margin:2.25rem 0 .15rem}
p{margin:.25rem 0;max-width:46rem;overflow-wrap:anywhere}
.soft,.note{color:var(--soft)}
.note{font-size:.875rem}
a{color:var(--main)}
section.server{background:var(--sheet);border:1px solid var(--rule);border-radius:10px;padding:1.75rem;margin:1.5rem 0}
.head{display:flex;flex-wrap:wrap;gap:.5rem .9rem;align-items:center}
.state{display:inline-flex;gap:.45em;align-items:center;border-radius:99px;padding:.1rem .75rem;font-size:.875rem;font-weight:600;white-space:nowrap}
.state.good{background:var(--good-ground);color:var(--good)}
.state.attention{background:var(--warn-ground);color:var(--warn)}
.state.problem{background:var(--bad-ground);color:var(--bad)}
ul.findings{list-style:none;margin:1rem 0 0;padding:0;display:grid;gap:.4rem}
ul.findings li{display:grid;grid-template-columns:1.4em 1fr;overflow-wrap:anywhere}
ul.findings .mark{font-weight:700}
.problem>.mark{color:var(--bad)}.attention>.mark{color:var(--warn)}.info>.mark{color:var(--soft)}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
dl.figures{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:1.25rem 1.5rem;margin:1.5rem 0 0}
dl.figures div{border-top:2px solid var(--rule);padding-top:.5rem;min-width:0}
dt{color:var(--soft);font-size:.875rem}
dd{margin:0;overflow-wrap:anywhere}
dd.value{font-size:1.5rem;font-weight:600;line-height:1.3;letter-spacing:-.01em}
dd.more{color:var(--soft);font-size:.875rem}
figure{margin:.75rem 0 0}
figcaption{color:var(--soft);font-size:.875rem}
.frame{padding-left:7.25rem}
.charts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 2.5rem}
.charts .frame{padding-left:4.75rem}
.charts>div:last-child:nth-child(odd){grid-column:1/-1}
svg.plot{display:block;overflow:visible;font-size:12px}
svg text{fill:var(--soft)}
.x line,.y line{stroke:var(--grid)}
.y .base{stroke:var(--soft)}
.lane line{stroke:var(--grid)}
.lane .name{fill:var(--ink);font-size:13px}
.lane .count{fill:var(--soft)}
.lane rect{fill:var(--main)}
.lane.all rect{fill:var(--soft)}
.lane circle{fill:var(--main);stroke:var(--sheet)}
.lane.unfinished circle{fill:none;stroke:var(--second);stroke-width:2}
.lane.remove text:not(.name),.cross text{fill:var(--bad);font-size:11px;font-weight:700}
.line .stroke{fill:none;stroke:var(--main);stroke-width:2;stroke-linejoin:round}
.line .band{fill:var(--main);opacity:.18}
.line circle{fill:var(--main)}
.line .spread{stroke:var(--main);stroke-width:2;opacity:.3}
.line.content .stroke{stroke:var(--second);stroke-dasharray:5 3}
.line.content .band{fill:var(--second)}
.line.content circle{fill:var(--sheet);stroke:var(--second);stroke-width:1.5}
.key{display:inline-flex;gap:.4em;align-items:center;margin-right:1.1em;white-space:nowrap}
.key svg{flex:none}
.scroll{overflow-x:auto;margin-top:.6rem}
section.server .scroll{background:linear-gradient(to left,var(--sheet) 60%,transparent) 100% 0/1.5rem 100% no-repeat local,linear-gradient(to left,var(--rule),transparent) 100% 0/.6rem 100% no-repeat scroll}
.scroll:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--main);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.875rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .9rem .4rem 0;border-bottom:1px solid var(--grid)}
th{font-weight:600;border-bottom-color:var(--rule);white-space:nowrap}
tbody th{font-weight:400;border-bottom-color:var(--grid)}
th:last-child,td:last-child{padding-right:0}
td.number,th.number{text-align:right;white-space:nowrap}
td.time,.id{white-space:nowrap}
td.why{min-width:15rem}
td.text{overflow-wrap:anywhere;min-width:12rem}
.id{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:.8125rem}
.tag{display:inline-block;border:1px solid var(--rule);border-radius:4px;padding:0 .4em;margin:0 .3em .15em 0;font-size:.8125rem;white-space:nowrap}
.tag.remove,.tag.damaged{border-color:var(--bad);color:var(--bad)}
.tag.unfinished,.tag.future,.tag.unverified{border-color:var(--second);color:var(--second)}
.tag.pinned{border-color:var(--main);color:var(--main)}
td.why .note,th .note{display:block}
details{margin-top:1rem}
summary{cursor:pointer;font-weight:600}
footer{padding-top:.5rem;padding-bottom:2.5rem;color:var(--soft);font-size:.875rem}
@media (max-width:64rem){.charts{grid-template-columns:minmax(0,1fr)}}
@media (max-width:50rem){.minor{display:none}}
@media (max-width:40rem){main,header,footer{padding-left:1rem;padding-right:1rem}header{padding-top:1.25rem}section.server{padding:1.1rem 1rem}dl.figures{grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem}dd.value{font-size:1.15rem}.lane rect{width:2px}.frame{padding-left:6.5rem}.lane .name{font-size:12px}td.why,td.text{min-width:10.5rem}th.time{white-space:normal;min-width:5.6rem}th,td{padding-right:.6rem}}
@media print{body{background:#fff}section.server{border:0;padding:0}}
`
