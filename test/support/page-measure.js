// Evaluated in a page by report.browsertest.ts: what is measured there, as one object.
;(() => {
  const seen = (element) => element.getClientRects().length > 0
  const boxOf = (element) => element.getBoundingClientRect()
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen)
  const overlaps = all('.x').flatMap((axis) => {
    const ticks = [...axis.querySelectorAll('text')].filter(seen)
    return ticks.slice(1).flatMap((tick, index) => {
      const before = ticks[index]
      return boxOf(before).right > boxOf(tick).left ? [`${before.textContent} | ${tick.textContent}`] : []
    })
  })
  const outside = all('svg text, h1, h2, h3, p, dt, dd, li, figcaption')
    .filter((one) => boxOf(one).left < 0 || boxOf(one).right > innerWidth)
    .map((one) => one.textContent)
  return {
    overflow: document.scrollingElement.scrollWidth - innerWidth,
    overlaps,
    outside,
    smallest: Math.min(...all('svg text').map((one) => boxOf(one).height)),
    rows: all('tbody tr').length,
    marks: all('svg.plot rect, svg.plot circle').length,
    ground: getComputedStyle(document.body).backgroundColor,
    text: document.body.innerText,
  }
})()
