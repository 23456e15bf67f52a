"""The style of the page: light and dark, print, and a phone's width."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfb; --card: #ffffff; --ink: #1d2126; --muted: #5c6570; --line: #d9dde1;
  --first: #2a6f97; --second: #c26a1b; --third: #5b7f3b;
  --done: #2a7fb0; --partly: #e0a100; --interrupted: #9a7bb5; --open: #8b939c; --failed: #c8402f;
  --good: #24733f; --bad: #b03021;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --card: #1c2025; --ink: #e6e8ea; --muted: #a0a8b1; --line: #363c44;
    --first: #6cb4dc; --second: #f0a35c; --third: #a3c97d;
    --done: #4fa3d4; --partly: #efb832; --interrupted: #b99ad6; --open: #858e98; --failed: #ee6f5c;
    --good: #6fcf8f; --bad: #ff8f7f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem clamp(.9rem, 3vw, 2rem) 4rem; max-width: 1160px;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .7rem; padding-top: .7rem;
     border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 75ch; overflow-wrap: anywhere; }
a { color: var(--first); text-underline-offset: .15em; }
.muted, figcaption, caption { color: var(--muted); font-size: .87rem; }
.verdict { font-size: 1.08rem; font-weight: 600; margin: .8rem 0; padding: .6rem .9rem;
  border-left: 4px solid var(--bad); background: var(--card); }
.verdict.good { border-color: var(--good); }
.verdict.pending { border-color: var(--partly); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; margin: 1rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6rem;
  margin: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .5rem .8rem; }
.tiles dt { color: var(--muted); font-size: .84rem; }
.tiles dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.tiles small { display: block; color: var(--muted); font-size: .8rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr));
  gap: 1.2rem; align-items: start; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit; }
figcaption { margin-top: .25rem; }
figcaption b, caption b { color: var(--ink); }
.timeline { margin: .8rem 0 1.6rem; }
.narrow { display: none; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: 0; margin: .4rem 0;
  list-style: none; font-size: .87rem; color: var(--muted); }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .35em; }
.scroll { overflow-x: auto; max-width: 100%; margin: .5rem 0; }
.scroll:focus-visible { outline: 2px solid var(--first); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; white-space: nowrap; }
th, td { text-align: left; padding: .28rem 1.1rem .28rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--muted); }
td, th { white-space: nowrap; }
td.n, th.n { text-align: right; }
td.long { white-space: normal; min-width: 17em; max-width: 46em; overflow-wrap: anywhere; }
.quotes { margin: .4rem 0; padding-left: 1.1rem; }
.quotes li { margin: .4rem 0; overflow-wrap: anywhere; }
.gallery { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); }
.gallery figure { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.gallery img { display: block; width: 100%; height: auto; background: #101010; }
.gallery figcaption { padding: .4rem .8rem .6rem; margin: 0; }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; }
@media (max-width: 640px) {
  body { font-size: 14.5px; padding-top: 1rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tiles dd { font-size: 1.1rem; }
}
@page { margin: 14mm; }
@media print {
  :root {
    --paper: #fff; --card: #fff; --ink: #000; --muted: #444; --line: #bbb;
    --first: #2a6f97; --second: #c26a1b; --third: #5b7f3b; --done: #2a7fb0; --partly: #e0a100;
    --interrupted: #9a7bb5; --open: #8b939c; --failed: #c8402f; --good: #24733f; --bad: #b03021;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .tiles div { break-inside: avoid; }
  h2 { margin-top: 1.6rem; }
  table { font-size: 8.5pt; }
  th, td { padding: .2rem .7rem .2rem 0; }
  .charts, .gallery { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .charts.broad { grid-template-columns: minmax(0, 1fr); }
  .wide { display: block; }
  .narrow { display: none; }
  .scroll { overflow: visible; }
  td.long { min-width: 10em; }
  caption { white-space: normal; }
  .key { break-inside: avoid; break-after: avoid; }
}
"""
