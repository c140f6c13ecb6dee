/** Reads the text exposition format, version 0.0.4, and takes nothing that is not in it. */

export interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

export interface Family {
  type: string
  samples: Sample[]
}

const SUFFIXES = ['_bucket', '_sum', '_count']

export function parseExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const families = new Map<string, Family>()
  let current = ''
  let helped = ''
  for (const line of text.slice(0, -1).split('\n')) {
    const [, keyword, about = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? []
    if (keyword === 'HELP') {
      helped = about
    } else if (keyword === 'TYPE') {
      if (families.has(about)) throw new Error(`${about} comes twice`)
      if (helped !== about) throw new Error(`${about} has no HELP`)
      if (!['counter', 'gauge', 'histogram'].includes(rest)) throw new Error(`${about} is a ${rest}`)
      families.set(about, { type: rest, samples: [] })
      current = about
    } else {
      const sample = parseSample(line)
      const family = families.get(current)
      const names = family?.type === 'histogram' ? SUFFIXES.map((suffix) => current + suffix) : [current]
      if (family === undefined || !names.includes(sample.name)) throw new Error(`out of place: ${line}`)
      const isThere = family.samples.some(
        ({ name, labels }) => name === sample.name && JSON.stringify(labels) === JSON.stringify(sample.labels),
      )
      if (isThere) throw new Error(`comes twice: ${line}`)
      family.samples.push(sample)
    }
  }
  return families
}

function parseSample(line: string): Sample {
  const [, name, inBraces = '', number = ''] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
  if (name === undefined) throw new Error(`not a sample: ${line}`)
  const labels: Record<string, string> = {}
  let rest = inBraces
  while (rest !== '') {
    const [whole, key = '', value = ''] = /^([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,(?=.)|$)/.exec(rest) ?? []
    if (whole === undefined) throw new Error(`not labels: ${line}`)
    labels[key] = value
    rest = rest.slice(whole.length)
  }
  if (!/^[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?$/i.test(number)) throw new Error(`not a number: ${line}`)
  return { name, labels, value: Number(number) }
}
