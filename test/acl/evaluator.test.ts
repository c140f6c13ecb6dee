/**
 * The evaluator case by case, and against a second implementation that knows no shortcut: all facts, bottom up.
 */
import fc from 'fast-check'
import t from 'tap'
import { Evaluator, type EvaluatorOptions } from '../../src/acl/evaluator.ts'
import {
  allowsTuple,
  builtinModel,
  type Model,
  modelFromJson,
  parseModel,
  type Rewrite,
  type Tuple,
} from '../../src/acl/model.ts'
import { EvaluationError, type Relationships } from '../../src/acl/run.ts'

/** `subject relation object` in one string. */
function tupleOf(text: string): Tuple {
  const [subject = '', relation = '', object = ''] = text.split(' ')
  return { subject, relation, object }
}

function relationshipsOf(tuples: readonly Tuple[]): Relationships {
  const of = (object: string, relation: string): string[] =>
    tuples.filter((each) => each.object === object && each.relation === relation).map((each) => each.subject)
  return {
    has: (object, relation, subject) => of(object, relation).includes(subject),
    usersets: (object, relation) => of(object, relation).filter((each) => each.includes('#')),
    objects: (object, relation) => of(object, relation).filter((each) => !each.includes('#') && !each.endsWith(':*')),
    subjects: of,
  }
}

function evaluatorOf(model: Model, tuples: readonly string[], options?: EvaluatorOptions): Evaluator {
  return new Evaluator(model, relationshipsOf(tuples.map(tupleOf)), options)
}

const small = (relations: string) =>
  parseModel(`model
  schema 1.1
type user
type bot
type group
  relations
    define member: [user, user:*, group#member]
type folder
  relations
    define up: [folder]
    define viewer: [user]
type doc
  relations
    define up: [doc, folder]
${relations
  .split('\n')
  .map((each) => `    define ${each.trim()}`)
  .join('\n')}
`)

/** Every line is one check: `+` is allowed, `-` is not. */
function answers(t: Tap, evaluator: Evaluator, lines: readonly string[]): void {
  for (const line of lines) {
    const { subject, relation, object } = tupleOf(line.slice(2))
    t.equal(evaluator.checkStrict(subject, relation, object), line.startsWith('+'), line)
    t.equal(evaluator.explain(subject, relation, object).allowed, line.startsWith('+'), `explained: ${line}`)
  }
}
type Tap = Pick<typeof t, 'equal'>

t.test('direct, computed and wildcards', async (t) => {
  const model = small('writer: [user]\nviewer: [user:*, bot] or writer')
  const evaluator = evaluatorOf(model, [
    'user:ann writer doc:1',
    'user:* viewer doc:2',
    'bot:b viewer doc:1',
    'user:cat viewer doc:3',
  ])
  answers(t, evaluator, [
    '+ user:ann writer doc:1',
    '+ user:ann viewer doc:1',
    '- user:bob viewer doc:1',
    '- user:ann writer doc:2',
    '+ user:ann viewer doc:2',
    '+ user:* viewer doc:2',
    '- user:* viewer doc:1',
    '- bot:b viewer doc:2',
    '+ bot:b viewer doc:1',
    '- bot:* viewer doc:1',
    '- user:ann viewer doc:9',
    '+ doc:9#writer viewer doc:9',
    '+ doc:9#viewer viewer doc:9',
    '- doc:9#viewer writer doc:9',
    '- doc:8#writer viewer doc:9',
    // `[user:*]` does not allow one user: the tuple is left from another model
    '- user:cat viewer doc:3',
  ])
})

t.test('usersets, nested and in a circle', async (t) => {
  const model = small('viewer: [user, group#member]')
  const evaluator = evaluatorOf(model, [
    'user:ann member group:a',
    'group:a#member member group:b',
    'group:b#member member group:c',
    'group:c#member member group:a',
    'group:c#member viewer doc:1',
    'user:* member group:all',
    'group:all#member viewer doc:2',
    'group:a viewer doc:3',
    'group:a#boss viewer doc:3',
    'folder:1#viewer viewer doc:3',
    'user:ann viewer folder:1',
  ])
  answers(t, evaluator, [
    '+ user:ann viewer doc:1',
    '- user:bob viewer doc:1',
    '+ group:a#member viewer doc:1',
    '+ group:c#member viewer doc:1',
    '- group:d#member viewer doc:1',
    '+ group:d#member member group:d',
    '+ group:a#member member group:c',
    '+ group:c#member member group:b',
    '+ user:bob viewer doc:2',
    '- group:a viewer doc:3',
    '- user:ann viewer doc:3',
  ])
})

t.test('from: only parents whose type has the relation, and only objects', async (t) => {
  const model = small('editor: [user]\nviewer: [user] or viewer from up\nboss: [user] or editor from up')
  const evaluator = evaluatorOf(model, [
    'folder:1 up doc:1',
    'doc:1 up doc:2',
    'user:ann viewer folder:1',
    'user:bob editor doc:1',
    'user:cat viewer doc:2',
    'doc:* up doc:3',
    'doc:2#viewer up doc:3',
  ])
  answers(t, evaluator, [
    '+ user:ann viewer doc:1',
    '+ user:ann viewer doc:2',
    '- user:bob viewer doc:2',
    '+ user:bob boss doc:2',
    '- user:bob boss doc:1',
    '- user:cat viewer doc:1',
    '- user:cat viewer doc:3',
    '- user:ann viewer doc:3',
  ])
})

t.test('union, intersection and exclusion', async (t) => {
  const model = small(
    'a: [user, user:*]\nb: [user]\nc: [user]\nany: a or b or c\nall: a and b and c\nnot: a but not b\ndeep: (a and b) but not (c or not)',
  )
  const evaluator = evaluatorOf(model, ['user:* a doc:1', 'user:x b doc:1', 'user:x c doc:1', 'user:y b doc:1', 'user:z c doc:2'])
  answers(t, evaluator, [
    '+ user:q any doc:1',
    '+ user:z any doc:2',
    '- user:y any doc:2',
    '+ user:x all doc:1',
    '- user:y all doc:1',
    '- user:q all doc:1',
    '+ user:q not doc:1',
    '- user:x not doc:1',
    '+ user:y deep doc:1',
    '- user:x deep doc:1',
    '- user:q deep doc:1',
    '+ user:* not doc:1',
  ])
})

t.test('a circle never makes an allow, and below an exclusion it does not hide one', async (t) => {
  const model = small(`banned: [user, group#member] or banned from up
viewer: [user] or viewer from up
reader: viewer but not banned
odd: [user] but not even
even: [user] or odd from up
loop: [user, doc#loop] and viewer
liar: [user] but not lied
lied: [user] or liar
honest: [user] but not lied
twice: liar or honest`)
  const tuples = [
    'doc:2 up doc:1',
    'doc:1 up doc:2',
    'user:ann viewer doc:1',
    'user:bob viewer doc:2',
    'user:bob banned doc:1',
    'group:a#member member group:b',
    'group:b#member member group:a',
    'group:a#member banned doc:1',
    'user:ann odd doc:1',
    'user:ann odd doc:2',
    'user:ann liar doc:1',
    'user:ann honest doc:1',
    'doc:2#loop loop doc:1',
    'doc:1#loop loop doc:2',
  ]
  answers(t, evaluatorOf(model, tuples), [
    '+ user:ann viewer doc:2',
    '- user:cat viewer doc:2',
    // banned goes in circles through folders and groups, and nobody put ann into one of them
    '+ user:ann reader doc:2',
    '- user:bob reader doc:1',
    '- user:bob reader doc:2',
    // each is allowed if the other is not: neither
    '- user:ann odd doc:1',
    '- user:ann odd doc:2',
    '- user:ann even doc:1',
    // who lies if he does not: that he does not is no ground to call him honest
    '- user:ann liar doc:1',
    '- user:ann honest doc:1',
    '- user:ann twice doc:1',
    '- user:ann loop doc:1',
    '+ doc:1#loop loop doc:1',
  ])
})

/** `both` walks `first` to its end before `second`, so that what `first` left behind can be wrong for `second`. */
const inOrder = small(`z: [user, doc#z]
first: [user, doc#z]
second: [user, doc#z]
both: first and second
either: first or second
rest: first but not second`)

t.test('what a circle left open is looked at again when it turns out true', async (t) => {
  // n leads to a, while a is not done; a is then true by w.
  const simple = [
    'doc:n#z z doc:a',
    'doc:w#z z doc:a',
    'doc:a#z z doc:n',
    'user:u z doc:w',
    'doc:a#z first doc:1',
    'doc:n#z second doc:1',
  ]
  // p leads to k and k to a; d reads what is known of p when k is done and a is not.
  const chained = [
    'doc:k#z z doc:a',
    'doc:d#z z doc:a',
    'doc:w#z z doc:a',
    'doc:p#z z doc:k',
    'doc:a#z z doc:k',
    'doc:k#z z doc:p',
    'doc:p#z z doc:d',
    'user:u z doc:w',
    'doc:a#z first doc:1',
    'doc:d#z second doc:1',
  ]
  for (const tuples of [simple, chained]) {
    answers(t, evaluatorOf(inOrder, tuples), [
      '+ user:u both doc:1',
      '- user:u rest doc:1',
      '- user:v both doc:1',
      '- user:v either doc:1',
    ])
  }
})

t.test('what was too deep on one way is found on a shorter one', async (t) => {
  const tuples = [
    'doc:b#z z doc:a',
    'doc:x#z z doc:b',
    'doc:c#z z doc:x',
    'doc:w#z z doc:c',
    'user:u z doc:w',
    'doc:a#z first doc:1',
    'doc:x#z second doc:1',
  ]
  const evaluator = evaluatorOf(inOrder, tuples, { depthMax: 5 })
  answers(t, evaluator, ['+ user:u either doc:1'])
  t.throws(() => evaluator.checkStrict('user:u', 'first', 'doc:1'), { name: 'EvaluationError', reason: 'depth' })
})

t.test('groups that all contain each other are one walk and not a factorial', async (t) => {
  const names = Array.from({ length: 30 }, (_, i) => `group:g${i}`)
  const tuples = names.flatMap((of) => names.map((member) => `${member}#member member ${of}`))
  const evaluator = evaluatorOf(builtinModel(), [...tuples, 'user:ann member group:g29'], { depthMax: 100 })
  answers(t, evaluator, ['+ user:ann member group:g0', '- user:bob member group:g0'])
})

t.test('beyond the depth limit, what goes in circles is neither true nor false', async (t) => {
  const model = small('near: [user] or far\nfar: far from up or near from up\nrest: near from up but not near')
  const tuples = ['doc:1 up doc:3', 'doc:3 up doc:1', 'doc:2 up doc:1']
  t.equal(evaluatorOf(model, tuples).checkStrict('doc:2#near', 'rest', 'doc:1'), false)
  for (const depthMax of [1, 2, 3, 4])
    t.equal(evaluatorOf(model, tuples, { depthMax }).check('doc:2#near', 'rest', 'doc:1'), false)

  const names = Array.from({ length: 40 }, (_, i) => `group:g${i}`)
  const all = names.flatMap((of) => names.map((member) => `${member}#member member ${of}`))
  t.equal(evaluatorOf(builtinModel(), all).check('user:bob', 'member', 'group:g0'), false)
})

t.test('the depth limit denies, and says so', async (t) => {
  const chain = (links: number) => [
    'user:ann viewer dir:0',
    ...Array.from({ length: links }, (_, i) => `dir:${i} parent dir:${i + 1}`),
  ]
  const refusals: string[] = []
  const options = { onRefusal: (why: string) => refusals.push(why) }
  t.equal(evaluatorOf(builtinModel(), chain(24), options).check('user:ann', 'read', 'dir:24'), true)
  t.same(refusals, [])
  const deep = evaluatorOf(builtinModel(), chain(25), options)
  t.equal(deep.check('user:ann', 'read', 'dir:25'), false)
  t.match(refusals, ['user:ann read dir:25: more than 25 relationships would have to be followed'])
  t.throws(() => deep.checkStrict('user:ann', 'read', 'dir:25'), { name: 'EvaluationError', reason: 'depth' })
  t.match(deep.explain('user:ann', 'read', 'dir:25'), { allowed: false, steps: [/^refused: more than 25/] })
  t.equal(evaluatorOf(builtinModel(), chain(300), { depthMax: 400 }).checkStrict('user:ann', 'read', 'dir:300'), true)

  // Too deep to know is neither: not an allow when it is subtracted, and no matter beside what is known.
  const model = small('far: [user] or far from up\nnear: [user]\nboth: near and far\nrest: near but not far\nany: near or far')
  const tuples = ['user:ann near doc:9', ...Array.from({ length: 9 }, (_, i) => `doc:${i} up doc:${i + 1}`)]
  const shallow = evaluatorOf(model, tuples, { depthMax: 4 })
  t.throws(() => shallow.checkStrict('user:ann', 'rest', 'doc:9'), { name: 'EvaluationError', reason: 'depth' })
  t.throws(() => shallow.checkStrict('user:ann', 'both', 'doc:9'), { name: 'EvaluationError', reason: 'depth' })
  t.equal(shallow.checkStrict('user:ann', 'any', 'doc:9'), true)
  t.equal(shallow.checkStrict('user:bob', 'rest', 'doc:9'), false)
  t.equal(shallow.check('user:ann', 'rest', 'doc:9'), false)
  t.equal(evaluatorOf(model, tuples).checkStrict('user:ann', 'rest', 'doc:9'), true)
})

t.test('what is not in the model, malformed or failing is denied', async (t) => {
  const refusals: string[] = []
  const evaluator = evaluatorOf(builtinModel(), ['user:ann owner dir:1'], { onRefusal: (why) => refusals.push(why) })
  const bad: [check: string, reason: string][] = [
    ['user:ann eat dir:1', 'relation'],
    ['user:ann owner disk:1', 'type'],
    ['robot:ann owner dir:1', 'type'],
    ['group:a#boss owner dir:1', 'relation'],
    ['ann owner dir:1', 'subject'],
    ['a:b:c owner dir:1', 'subject'],
    ['group:*#member owner dir:1', 'subject'],
    ['user:ann owner dir', 'object'],
    ['user:ann owner dir:*', 'object'],
    ['user:ann owner user:ann', 'relation'],
    ['user:ann constructor dir:1', 'relation'],
  ]
  for (const [check, reason] of bad) {
    const { subject, relation, object } = tupleOf(check)
    t.equal(evaluator.check(subject, relation, object), false, check)
    t.equal(evaluator.explain(subject, relation, object).allowed, false, check)
    t.match(refusals.pop(), check, `refused: ${check}`)
    t.throws(() => evaluator.checkStrict(subject, relation, object), new EvaluationError(reason as 'type', ''), { reason })
  }
  const broken = new Evaluator(
    builtinModel(),
    {
      ...relationshipsOf([]),
      has: () => {
        throw new Error('the disk is gone')
      },
    },
    { onRefusal: (why) => refusals.push(why) },
  )
  t.equal(broken.check('user:ann', 'owner', 'dir:1'), false)
  t.match(refusals, [/the disk is gone/])
})

t.test('explanations say every step', async (t) => {
  const evaluator = evaluatorOf(builtinModel(), [
    'user:alice member group:eng',
    'group:eng#member editor dir:7/12',
    'dir:7/12 parent file:7/40',
    'group:eng owner file:7/40',
  ])
  t.same(evaluator.explain('user:alice', 'write', 'file:7/40'), {
    allowed: true,
    steps: [
      'user:alice is member of group:eng',
      'group:eng#member is editor of dir:7/12',
      'dir:7/12 contains file:7/40',
      'editor on file:7/40 comes from editor on dir:7/12',
      'write on file:7/40 comes from editor',
    ],
  })
  const denied = evaluator.explain('user:bob', 'share', 'file:7/40')
  t.same(denied, {
    allowed: false,
    steps: [
      'share on file:7/40 could come from owner',
      'user:bob was not given owner of file:7/40',
      'owner on file:7/40 could come from owner on dir:7/12',
      'user:bob was not given owner of dir:7/12',
      'dir:7/12 has no parent that has owner',
    ],
  })
  t.ok(
    evaluator
      .explain('user:bob', 'write', 'file:7/40')
      .steps.includes('group:eng#member is editor of dir:7/12, and user:bob is not in it'),
  )

  const banned = small('banned: [user]\nviewer: [user, bot] but not banned\nboth: viewer and banned')
  const other = evaluatorOf(banned, ['user:ann viewer doc:1', 'user:ann banned doc:1', 'group:a#member viewer doc:1'])
  t.same(other.explain('user:ann', 'viewer', 'doc:1').steps, [
    'viewer on doc:1 is taken away: user:ann is, or may be, banned of doc:1',
    'user:ann is banned of doc:1',
  ])
  t.same(other.explain('user:ann', 'both', 'doc:1').steps[0], 'both on doc:1 needs all of (viewer and banned)')
  t.ok(
    other
      .explain('user:bob', 'viewer', 'doc:1')
      .steps.includes('group:a#member is viewer of doc:1 is ignored: the model does not allow it'),
  )
  t.same(other.explain('bot:x', 'banned', 'doc:1').steps, [
    'bot:x cannot be banned of doc:1: the model has no way from bot to it',
  ])

  const wide = Array.from({ length: 200 }, (_, i) => `group:g${i}#member viewer dir:1`)
  const { steps } = evaluatorOf(builtinModel(), wide).explain('user:ann', 'viewer', 'dir:1')
  t.equal(steps.length, 50)
  t.equal(steps.at(-1), '… and more')
})

/** All facts `subject relation object`, found by applying the model to what is known until nothing is added. */
function factsOf(model: Model, tuples: readonly Tuple[], subjects: readonly string[], objects: readonly string[]): Set<string> {
  const typeOf = (name: string): string => name.slice(0, name.indexOf(':'))
  const usable = tuples.filter((each) => allowsTuple(model, each) === undefined)
  const holds = (
    rewrite: Rewrite,
    subject: string,
    relation: string,
    object: string,
    known: Set<string>,
    absent: Set<string>,
  ): boolean => {
    const again = (each: Rewrite): boolean => holds(each, subject, relation, object, known, absent)
    if (rewrite.kind === 'union') return rewrite.children.some(again)
    if (rewrite.kind === 'intersection') return rewrite.children.every(again)
    if (rewrite.kind === 'difference')
      return again(rewrite.base) && !holds(rewrite.subtract, subject, relation, object, absent, known)
    if (rewrite.kind === 'computed') return known.has(`${subject} ${rewrite.relation} ${object}`)
    if (rewrite.kind === 'from') {
      return usable.some(
        (each) =>
          each.object === object &&
          each.relation === rewrite.tupleset &&
          known.has(`${subject} ${rewrite.computed} ${each.subject}`),
      )
    }
    return usable.some((each) => {
      if (each.object !== object || each.relation !== relation) return false
      if (each.subject === subject) return true
      if (each.subject.endsWith(':*')) return !subject.includes('#') && typeOf(subject) === typeOf(each.subject)
      const [of, members] = each.subject.split('#')
      return members !== undefined && known.has(`${subject} ${members} ${of}`)
    })
  }
  /** The least set of facts, where what is subtracted is looked up in `absent`. */
  const least = (absent: Set<string>): Set<string> => {
    const known = new Set<string>()
    for (let before = -1; before < known.size; ) {
      before = known.size
      for (const object of objects) {
        for (const [relation, { rewrite }] of model.types.get(typeOf(object)) ?? []) {
          for (const subject of subjects) {
            if (subject === `${object}#${relation}` || holds(rewrite, subject, relation, object, known, absent)) {
              known.add(`${subject} ${relation} ${object}`)
            }
          }
        }
      }
    }
    return known
  }
  // The well-founded model (Van Gelder's alternating fixpoint): from nothing to what is surely true. With exclusions that are
  // not recursive it is the only model; otherwise it leaves out what would follow from its own absence.
  let surely = new Set<string>()
  for (;;) {
    const next = least(least(surely))
    if (next.size === surely.size) return surely
    surely = next
  }
}

interface World {
  model: Model
  tuples: Tuple[]
  subjects: string[]
  objects: string[]
}

function compare(world: World, exact: boolean): { allowed: number; denied: number } {
  const { model, tuples, subjects, objects } = world
  const facts = factsOf(model, tuples, subjects, objects)
  const evaluator = new Evaluator(model, relationshipsOf(tuples), { depthMax: 1000 })
  const shallow = new Evaluator(model, relationshipsOf(tuples), { depthMax: 3 })
  let allowed = 0
  let denied = 0
  for (const object of objects) {
    for (const relation of model.types.get(object.slice(0, object.indexOf(':')))?.keys() ?? []) {
      for (const subject of subjects) {
        const fact = `${subject} ${relation} ${object}`
        const got = evaluator.checkStrict(subject, relation, object)
        if (exact ? got !== facts.has(fact) : got && !facts.has(fact)) throw new Error(`${fact}: ${got} is wrong`)
        if (shallow.check(subject, relation, object) && !facts.has(fact)) throw new Error(`${fact}: allowed, being too deep`)
        if (got) allowed++
        else denied++
      }
      const whoCan = subjects.filter((subject) => evaluator.check(subject, relation, object))
      const expected = subjects.filter((subject) => facts.has(`${subject} ${relation} ${object}`))
      if (exact && whoCan.join() !== expected.join())
        throw new Error(`who has ${relation} to ${object}: ${whoCan} is not ${expected}`)
      const subject = subjects[(object.length * 7 + relation.length) % subjects.length] ?? ''
      const { allowed: explained, steps } = evaluator.explain(subject, relation, object)
      if (explained !== evaluator.check(subject, relation, object))
        throw new Error(`${subject} ${relation} ${object} is explained wrong`)
      if (steps.length > 50 || (steps.length === 0 && subject !== `${object}#${relation}`)) throw new Error('nothing explained')
    }
  }
  for (const subject of subjects) {
    for (const relation of new Set([...model.types.values()].flatMap((each) => [...each.keys()]))) {
      const whatCan = objects.filter((object) => evaluator.check(subject, relation, object))
      const expected = objects.filter((object) => facts.has(`${subject} ${relation} ${object}`))
      if (exact && whatCan.join() !== expected.join())
        throw new Error(`what ${subject} has ${relation} to: ${whatCan} is not ${expected}`)
    }
  }
  return { allowed, denied }
}

/** Every userset of these objects, beside plain subjects. */
function subjectsOf(model: Model, objects: readonly string[], plain: readonly string[]): string[] {
  const usersets = objects.flatMap((object) =>
    [...(model.types.get(object.slice(0, object.indexOf(':')))?.keys() ?? [])].map((relation) => `${object}#${relation}`),
  )
  return [...plain, ...objects, ...usersets]
}

const filesystemObjects = ['group:1', 'group:2', 'dir:1', 'dir:2', 'dir:3', 'file:1', 'workspace:1', 'tenant:1']
const filesystemSubjects = ['user:a', 'user:b', 'user:*', 'agent:a', 'agent:*']
const givable = [...filesystemSubjects, 'group:1#member', 'group:2#member', 'tenant:1#member', 'dir:1#viewer']
const filesystemTuple: fc.Arbitrary<Tuple> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      subject: fc.constantFrom(...filesystemObjects.slice(2)),
      relation: fc.constant('parent'),
      object: fc.constantFrom(...filesystemObjects.slice(2)),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      subject: fc.constantFrom(...givable),
      relation: fc.constantFrom('owner', 'editor', 'viewer'),
      object: fc.constantFrom(...filesystemObjects.slice(2)),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      subject: fc.constantFrom(...givable),
      relation: fc.constant('member'),
      object: fc.constantFrom('group:1', 'group:2'),
    }),
  },
)

t.test('random graphs over the built-in model', async (t) => {
  const model = builtinModel()
  const subjects = [...filesystemSubjects, 'group:1#member', 'group:2#member', 'tenant:1#member', 'dir:2#editor', 'dir:1']
  let allowed = 0
  let denied = 0
  fc.assert(
    fc.property(fc.array(filesystemTuple, { maxLength: 12 }), (tuples) => {
      const counts = compare({ model, tuples, subjects, objects: filesystemObjects }, true)
      allowed += counts.allowed
      denied += counts.denied
    }),
    { numRuns: 100 },
  )
  t.ok(allowed > 1000 && denied > 1000, `${allowed} allowed, ${denied} denied`)
})

/** A rewrite in JSON; subtracted are only relations of a lower layer, so that no exclusion leads back to itself. */
function rewrite(layer: number, depth: number, stratified: boolean): fc.Arbitrary<object> {
  const name = (top: number) => fc.integer({ min: 0, max: top }).chain((n) => fc.constantFrom(`r${n}a`, `r${n}b`))
  const leaf = fc.oneof(
    { weight: 3, arbitrary: fc.constant({ this: {} }) },
    { weight: 2, arbitrary: name(layer).map((relation) => ({ computedUserset: { relation } })) },
    {
      weight: 2,
      arbitrary: name(layer).map((relation) => ({
        tupleToUserset: { tupleset: { relation: 'up' }, computedUserset: { relation } },
      })),
    },
  )
  if (depth === 0) return leaf
  const inner = rewrite(layer, depth - 1, stratified)
  const both = fc.tuple(inner, inner).map((child) => ({ child }))
  const all = [leaf, both.map((union) => ({ union })), both.map((intersection) => ({ intersection }))]
  const below = stratified ? layer - 1 : layer
  if (below < 0) return fc.oneof(...all)
  const minus = rewriteWithoutThis(below, depth - 1, stratified)
  return fc.oneof(
    ...all,
    fc.record({ base: inner, subtract: minus }).map((difference) => ({ difference })),
  )
}

/** The direct part belongs to the layer of the relation itself: below, it would lead back. */
function rewriteWithoutThis(layer: number, depth: number, stratified: boolean): fc.Arbitrary<object> {
  return rewrite(layer, depth, stratified).map(
    (json) => JSON.parse(JSON.stringify(json).replaceAll('"this":{}', '"computedUserset":{"relation":"r0a"}')) as object,
  )
}

const LAYERS = 3

function randomWorld(stratified: boolean): fc.Arbitrary<World> {
  const names = Array.from({ length: LAYERS }, (_, n) => [`r${n}a`, `r${n}b`]).flat()
  const rewrites = fc.tuple(...names.map((_, i) => rewrite(Math.floor(i / 2), 2, stratified)))
  const objects = ['doc:1', 'doc:2', 'doc:3', 'group:1', 'group:2']
  const graph = fc.array(
    fc.oneof(
      {
        weight: 3,
        arbitrary: fc.record({
          subject: fc.constantFrom(
            'user:a',
            'user:b',
            'user:*',
            'bot:x',
            'group:1#member',
            'group:2#member',
            ...names.flatMap((each) => [`doc:1#${each}`, `doc:2#${each}`]),
          ),
          relation: fc.constantFrom(...names),
          object: fc.constantFrom('doc:1', 'doc:2', 'doc:3'),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          subject: fc.constantFrom('doc:1', 'doc:2', 'doc:3'),
          relation: fc.constant('up'),
          object: fc.constantFrom('doc:1', 'doc:2', 'doc:3'),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          subject: fc.constantFrom('user:a', 'user:*', 'group:1#member', 'group:2#member'),
          relation: fc.constant('member'),
          object: fc.constantFrom('group:1', 'group:2'),
        }),
      },
    ),
    { maxLength: 18, size: 'max' },
  )
  return fc.record({ rewrites, graph }).map(({ rewrites, graph }) => {
    const group = [{ type: 'user' }, { type: 'user', wildcard: {} }, { type: 'group', relation: 'member' }]
    const metadata: Record<string, object> = { up: { directly_related_user_types: [{ type: 'doc' }] } }
    for (const [i, name] of names.entries()) {
      // A set that may be given a relation makes it depend on that set: of its own layer or below.
      const sets = names.slice(0, stratified ? (Math.floor(i / 2) + 1) * 2 : names.length).filter((_, n) => (n + i) % 3 !== 0)
      metadata[name] = { directly_related_user_types: [...group, ...sets.map((relation) => ({ type: 'doc', relation }))] }
    }
    const relations = Object.fromEntries([['up', { this: {} }], ...names.map((name, i) => [name, rewrites[i]])])
    const model = modelFromJson({
      schema_version: '1.1',
      type_definitions: [
        { type: 'user' },
        { type: 'bot' },
        {
          type: 'group',
          relations: { member: { this: {} } },
          metadata: { relations: { member: { directly_related_user_types: group } } },
        },
        { type: 'doc', relations, metadata: { relations: metadata } },
      ],
    })
    return { model, tuples: graph, objects, subjects: subjectsOf(model, objects, ['user:a', 'user:b', 'user:*', 'bot:x']) }
  })
}

for (const [name, stratified] of [
  ['random models with union, intersection and exclusion', true],
  ['random models whose exclusions may lead back to themselves: nothing is allowed that is not surely true', false],
] as const) {
  t.test(name, async (t) => {
    let allowed = 0
    let denied = 0
    const property = fc.property(randomWorld(stratified), (world) => {
      const counts = compare(world, stratified)
      allowed += counts.allowed
      denied += counts.denied
    })
    fc.assert(property, { numRuns: 300 })
    t.ok(allowed > 3000 && denied > 3000, `${allowed} allowed, ${denied} denied`)
  })
}
