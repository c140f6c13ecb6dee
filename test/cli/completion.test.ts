/** Completion and man pages, by the shells and the formatter that users have. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { SHELLS } from '../../src/cli/completion.ts'
import { packageRoot } from '../../src/host/version.ts'

const directory = mkdtempSync(join(tmpdir(), 'completion-'))

function run(file: string, words: readonly string[]): string {
  return execFileSync(file, words, { encoding: 'utf8', cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] })
}

function scriptOf(program: string, shell: string): string {
  const file = join(directory, `${program}.${shell}`)
  writeFileSync(file, run(process.execPath, [join(packageRoot(), 'dist', 'bin', `${program}.js`), 'completion', shell]))
  return file
}

/** What a shell offers for the last of the words. */
const offers: Record<(typeof SHELLS)[number], (program: string, words: readonly string[]) => string[]> = {
  bash: (program, words) => {
    const list = [program, ...words].map((word) => `'${word}'`).join(' ')
    const asked = `source '${scriptOf(program, 'bash')}'; COMP_WORDS=(${list}); COMP_CWORD=${words.length}; _${program}; printf '%s\\n' "\${COMPREPLY[@]}"`
    return run('bash', ['-c', asked]).trim().split('\n')
  },
  zsh: (program, words) => {
    // Its completion needs a terminal: what it calls to show what is offered is replaced.
    const shown = '_describe() { for one in $offered; do print -r -- $one; done }; _files() { print -l -- * }'
    const list = [program, ...words].map((word) => `'${word}'`).join(' ')
    const last = words.at(-1) ?? ''
    const asked = `source '${scriptOf(program, 'zsh')}'; ${shown}; words=(${list}); CURRENT=${words.length + 1}; _${program}`
    return run('zsh', ['-f', '-c', asked])
      .trim()
      .split('\n')
      .map((line) => line.split(':')[0] as string)
      .filter((word) => word.startsWith(last))
  },
  fish: (program, words) => {
    const asked = `source '${scriptOf(program, 'fish')}'; complete -C '${[program, ...words].join(' ')}'`
    return run('fish', ['--no-config', '-c', asked])
      .trim()
      .split('\n')
      .map((line) => line.split('\t')[0] as string)
  },
}

for (const shell of SHELLS) {
  t.test(`${shell} completes commands, options and paths`, async (t) => {
    const offer = offers[shell]
    t.strictSame(offer('nexusctl', ['snap']), ['snapshot'])
    t.strictSame(offer('nexusctl', ['snapshot', 'di']), ['diff'])
    t.strictSame(offer('nexusctl', ['--json', 'snapshot', 'del']), ['delete'], 'an option in front changes nothing')
    t.strictSame(offer('nexusctl', ['fork', '--with']), ['--with-grants'])
    t.strictSame(offer('nexusctl', ['fork', '--js']), ['--json'], 'options of all commands')
    writeFileSync(join(directory, 'a file'), '')
    t.strictSame(
      offer('nexusctl', ['snapshot', 'list', 'a']).map((one) => one.replaceAll('\\', '')),
      ['a file'],
      'a PATH is a file',
    )
    t.strictSame(offer('nexusd', ['unm']), ['unmount'])
    t.notOk(offer('nexusd', ['']).includes('serve'), 'what is hidden is not offered')
  })
}

for (const page of ['nexusctl.1', 'nexusd.8']) {
  t.test(`man page ${page}`, async (t) => {
    const file = join(packageRoot(), 'dist', 'man', page)
    t.equal(execFileSync('groff', ['-man', '-ww', '-z', file], { encoding: 'utf8' }), '', 'the formatter has nothing to say')
    const text = execFileSync('groff', ['-man', '-Tascii', '-P-cbou', file], { encoding: 'utf8' })
    for (const title of ['NAME', 'SYNOPSIS', 'OPTIONS', 'COMMANDS', 'EXIT STATUS', 'ENVIRONMENT', 'SEE ALSO']) {
      t.match(text, new RegExp(`^${title}$`, 'm'))
    }
    t.notMatch(readFileSync(file, 'utf8'), /undefined/)
  })
}
