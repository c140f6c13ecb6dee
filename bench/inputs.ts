/**
 * What workloads work on: trees of source files, archives, repositories, packages and a C project. Made when first asked
 * for, outside of what is measured, and the same in every run: all that varies comes from a seeded generator.
 */
import { execFileSync } from 'node:child_process'
import crypto from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Random, SourceTree } from './generator.ts'

const OPS_SOURCE = fileURLToPath(new URL('../../bench/ops.c', import.meta.url))
/** Times of everything that is generated, in seconds. */
const EPOCH = 1_577_836_800 // 2020-01-01
const PACKAGE_FILES = 30
const FUNCTIONS_A_SOURCE = 40

export interface Packages {
  /** a directory with package.json and package-lock.json */
  project: string
  /** a cache of npm that has all of them, for everybody */
  cache: string
  /** in all packages together */
  files: number
}

export class Inputs {
  readonly #directory: string
  readonly #made = new Map<string, unknown>()
  /** the program made of ops.c */
  readonly ops: string

  /** @param directory empty; every uid may read it */
  constructor(directory: string) {
    this.#directory = directory
    this.ops = path.join(directory, 'ops')
    execFileSync('cc', ['-O2', '-o', this.ops, OPS_SOURCE])
  }

  #once<T>(name: string, make: (at: string) => T): T {
    if (!this.#made.has(name)) this.#made.set(name, make(path.join(this.#directory, name)))
    return this.#made.get(name) as T
  }

  #sh(directory: string, script: string): void {
    execFileSync('bash', ['-euc', script], {
      cwd: directory,
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, ...GIT_ENVIRONMENT },
    })
  }

  /** A directory of so many source files. @param seed of what is in them */
  tree(files: number, seed = 1): string {
    return this.#once(`tree-${files}-${seed}`, (at) => {
      const tree = new SourceTree(seed)
      for (let i = 0; i < files; i++) {
        const file = path.join(at, tree.path(i))
        fs.mkdirSync(path.dirname(file), { recursive: true })
        fs.writeFileSync(file, tree.content(i, 0))
        fs.utimesSync(file, EPOCH, EPOCH)
      }
      return at
    })
  }

  /** The same as an archive. */
  tar(files: number, seed = 1): string {
    return this.#once(`${files}-${seed}.tar`, (at) => {
      const words = `--sort=name --owner=0 --group=0 --numeric-owner --mtime=@${EPOCH}`
      this.#sh(this.tree(files, seed), `tar ${words} -cf ${at} *`)
      return at
    })
  }

  zip(files: number): string {
    return this.#once(`${files}.zip`, (at) => {
      this.#sh(this.tree(files), `zip -q -1 -r -D ${at} .`)
      return at
    })
  }

  /**
   * A bare repository whose tags `first` and `last` (HEAD, of so many files) lie `commits` commits apart; in each of these
   * a part of the files changes, and some move. All in one pack.
   */
  repository(files: number, commits: number): string {
    return this.#once(`repository-${files}-${commits}.git`, (at) => {
      execFileSync('git', ['init', '-q', '--bare', '-b', 'main', at], { env: { ...process.env, ...GIT_ENVIRONMENT } })
      const stream = `${at}.import`
      writeImport(stream, new SourceTree(), files, commits)
      this.#sh(at, `git fast-import --quiet < ${stream} && git repack -adq && git pack-refs --all && git update-server-info`)
      fs.rmSync(stream)
      return at
    })
  }

  /** A C project of so many sources; `make` builds `all`, which prints their number. */
  project(sources: number): string {
    return this.#once(`project-${sources}`, (at) => {
      fs.mkdirSync(at)
      const names = Array.from({ length: sources }, (_, i) => `part${i}`)
      for (const [i, name] of names.entries()) fs.writeFileSync(path.join(at, `${name}.c`), sourceText(name, i))
      fs.writeFileSync(path.join(at, 'parts.h'), `${names.map((name) => `int ${name}(int);`).join('\n')}\n`)
      const sum = names.map((name) => `${name}(0)`).join(' + ')
      fs.writeFileSync(
        path.join(at, 'main.c'),
        `#include <stdio.h>\n#include "parts.h"\nint main(void) { printf("%d\\n", ${sum}); }\n`,
      )
      const objects = ['main', ...names].map((name) => `${name}.o`).join(' ')
      fs.writeFileSync(
        path.join(at, 'Makefile'),
        `CFLAGS = -O1\nall: ${objects}\n\t$(CC) -o $@ $^\n%.o: %.c parts.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n`,
      )
      return at
    })
  }

  /** A lockfile that names so many packages of the registry, and a cache that has them: nothing is asked of a network. */
  packages(count: number): Packages {
    return this.#once(`packages-${count}`, (at) => {
      const [project, tarballs, cache] = ['project', 'tarballs', 'cache'].map((name) => path.join(at, name)) as [
        string,
        string,
        string,
      ]
      for (const one of [project, tarballs, cache]) fs.mkdirSync(one, { recursive: true })
      const tree = new SourceTree()
      const dependencies: Record<string, string> = {}
      const locked: Record<string, unknown> = {}
      for (let i = 0; i < count; i++) {
        const name = `bench-package-${i}`
        dependencies[name] = '1.0.0'
        const tarball = path.join(tarballs, `${name}.tgz`)
        this.#pack(tree, name, i, path.join(at, 'package'), tarball)
        const integrity = `sha512-${crypto.createHash('sha512').update(fs.readFileSync(tarball)).digest('base64')}`
        locked[`node_modules/${name}`] = { version: '1.0.0', resolved: registryAddress(name), integrity }
      }
      const root = { name: 'bench', version: '1.0.0', dependencies }
      const write = (name: string, value: unknown): void =>
        fs.writeFileSync(path.join(project, name), `${JSON.stringify(value, null, 2)}\n`)
      write('package.json', root)
      write('package-lock.json', { ...root, lockfileVersion: 3, requires: true, packages: { '': root, ...locked } })
      this.#sh(
        tarballs,
        `npm cache add --offline --logs-max=0 --cache ${cache} ./*.tgz && rm -rf ../tarballs && chmod -R a+rwX ${cache}`,
      )
      return { project, cache, files: count * PACKAGE_FILES }
    })
  }

  /** One package, as `npm pack` lays it out. */
  #pack(tree: SourceTree, name: string, number: number, at: string, tarball: string): void {
    fs.mkdirSync(path.join(at, 'lib'), { recursive: true })
    fs.writeFileSync(path.join(at, 'package.json'), JSON.stringify({ name, version: '1.0.0', main: 'lib/0.js' }))
    for (let i = 0; i < PACKAGE_FILES - 1; i++)
      fs.writeFileSync(path.join(at, 'lib', `${i}.js`), tree.content(number * PACKAGE_FILES + i, 0))
    const words = `--sort=name --owner=0 --group=0 --numeric-owner --mtime=@${EPOCH}`
    this.#sh(path.dirname(at), `tar ${words} -c package | gzip -n1 > ${tarball}`)
  }

  /** INSERTs of a hundred bytes or so: each its own transaction, or all in one. */
  sql(rows: number, isOne: boolean): string {
    return this.#once(`${rows}-${isOne}.sql`, (at) => {
      const insert =
        "INSERT INTO t (text) VALUES ('a hundred bytes of text, more or less, that somebody wanted to keep for good');\n"
      fs.writeFileSync(at, isOne ? `BEGIN;\n${insert.repeat(rows)}COMMIT;\n` : insert.repeat(rows))
      return at
    })
  }
}

const GIT_ENVIRONMENT = { GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null' }

function registryAddress(name: string): string {
  return `https://registry.npmjs.org/${name}/-/${name}-1.0.0.tgz`
}

/** Enough of C for a compiler to have something to do. */
function sourceText(name: string, seed: number): string {
  const random = new Random(seed)
  const functions = Array.from({ length: FUNCTIONS_A_SOURCE }, (_, i) => {
    const [a, b, c] = [random.below(1000) + 1, random.below(1000) + 1, random.below(30) + 1]
    return `static int f${i}(int x)\n{\n\tint s = ${a};\n\tfor (int i = 0; i < x % ${c}; i++)\n\t\ts = s * ${b} + (s >> ${(c % 7) + 1}) + i;\n\treturn s;\n}\n`
  })
  const calls = functions.map((_, i) => `f${i}(x)`).join(' + ')
  return `#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include "parts.h"\n${functions.join('\n')}\nint ${name}(int x)\n{\n\treturn x ? ${calls} : 1;\n}\n`
}

/** A history in the language of git fast-import. @see git-fast-import(1) */
function writeImport(file: string, tree: SourceTree, files: number, commits: number): void {
  const fd = fs.openSync(file, 'w')
  const write = (text: string): void => void fs.writeSync(fd, text)
  const data = (text: string): string => `data ${Buffer.byteLength(text)}\n${text}\n`
  const changed = Math.max(1, Math.floor(files / 100))
  for (let commit = 0; commit <= commits; commit++) {
    write(`commit refs/heads/main\ncommitter bench <bench@localhost> ${EPOCH + commit} +0000\n${data(`commit ${commit}`)}`)
    const [from, to] = commit === 0 ? [0, files] : [(commit - 1) * changed, commit * changed]
    for (let i = from; i < to; i++) {
      const at = i % files
      // Every tenth of those that change is at another place from then on.
      const moves = commit > 0 && at % 10 === 0
      if (moves) write(`D ${tree.path(at)}\n`)
      write(`M 100644 inline ${moves ? `moved/${tree.path(at)}` : tree.path(at)}\n${data(tree.content(at, commit))}`)
    }
    if (commit === 0) write('tag first\nfrom refs/heads/main\ntagger bench <bench@localhost> 0 +0000\ndata 0\n')
  }
  write('tag last\nfrom refs/heads/main\ntagger bench <bench@localhost> 0 +0000\ndata 0\n')
  fs.closeSync(fd)
}
