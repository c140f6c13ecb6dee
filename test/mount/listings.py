"""Lists a large directory while its entries come and go; prints what was wrong with each listing."""
import json
import os
import sys


def listed(change, batch):
    """The names of '.', where `change` is called now and then in between."""
    names = []
    with os.scandir('.') as entries:
        for number, entry in enumerate(entries):
            names.append(entry.name)
            if number % batch == 0:
                change(number // batch)
    return names


def report(names, stable, transient):
    seen = set(names)
    twice = len(names) - len(seen)
    return {
        'missing': sorted(stable - seen)[:5],
        'twice': sorted(name for name in seen if names.count(name) > 1)[:5] if twice else [],
        'strange': sorted(seen - stable - transient)[:5],
    }


def make(names):
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))


def main():
    count = json.load(sys.stdin)['entries']
    os.chdir(sys.argv[1])
    stable = {'stable-%05d' % i for i in range(count)}
    short = ['short-%05d' % i for i in range(count // 10)]
    make(stable)
    make(short)
    came, renamed = set(), set()

    def nothing(_):
        pass

    def come(step):
        name = 'came-%05d' % step
        came.add(name)
        make([name])

    def go(step):
        if step < len(short):
            os.unlink(short[step])

    def move(step):
        if step < len(short):
            renamed.add('renamed-%05d' % step)
            os.rename(short[step], 'renamed-%05d' % step)

    stories = {'at rest': nothing, 'entries come': come, 'entries go': go}
    result = {}
    for story, change in stories.items():
        result[story] = report(listed(change, 100), stable, set(short) | came)
    make(short)
    # A renamed entry may show under both names or none, as POSIX allows.
    result['entries are renamed'] = report(listed(move, 100), stable, set(short) | came | renamed)
    result['again from the cache'] = report(os.listdir('.'), stable, set(short) | came | renamed)
    print(json.dumps(result))


if __name__ == '__main__':
    main()
