# Works in the directory that is the first argument until the file that is the third one appears. Every step checks
# what it has done; the server of the mount is killed meanwhile. The second argument is the seed. After the first step
# a file appears that has the seed behind the name of the third argument.
import os, random, shutil, sys, time

base, seed, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rnd = random.Random(seed)
top = os.path.join(base, 'usr/share/w%d' % seed)


def write(path, text, mode='w'):
    with open(path, mode) as f:
        f.write(text)


def read(path):
    with open(path) as f:
        return f.read()


def want(got, expected):
    if got != expected:
        raise AssertionError('got %r, want %r' % (got, expected))


def pause():
    time.sleep(rnd.random() / 10)


def tree(p):
    os.makedirs(p + '/a/b')
    for i in range(40):
        write(p + '/a/f%d' % i, 'x' * i)
    want(sorted(os.listdir(p + '/a')), sorted(['b'] + ['f%d' % i for i in range(40)]))
    os.rename(p, p + 'r')
    want(read(p + 'r/a/f7'), 'x' * 7)
    shutil.rmtree(p + 'r')


def unlinked(p):
    with open(p, 'w+') as f:
        f.write('hello')
        f.flush()
        os.unlink(p)
        want(os.fstat(f.fileno()).st_nlink, 0)
        f.write('world')
        f.flush()
        pause()
        f.seek(0)
        want(f.read(), 'helloworld')


def links(p):
    write(p, '1')
    os.link(p, p + 'l')
    want(os.stat(p).st_nlink, 2)
    os.unlink(p)
    want(read(p + 'l'), '1')
    os.unlink(p + 'l')
    os.symlink('target', p)
    want(os.readlink(p), 'target')
    os.unlink(p)


def content(p):
    fd = os.open(p, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    data, at = os.urandom(rnd.randrange(300000)), 0
    while at < len(data):
        at += os.write(fd, data[at:at + 65536])
    pause()
    want(os.pread(fd, len(data) + 1, 0), data)
    os.fsync(fd)
    os.close(fd)
    with open(p, 'rb') as f:
        want(f.read(), data)
    want(os.stat(p).st_mode & 0o7777, 0o640)
    os.unlink(p)


def nameless(p):
    fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b'content')
    pause()
    want(os.pread(fd, 10, 0), b'content')
    os.close(fd)


def append(p):
    with open(p, 'a') as f:
        for i in range(30):
            f.write('line%d\n' % i)
            f.flush()
    want(read(p), ''.join('line%d\n' % i for i in range(30)))
    os.unlink(p)


def image(p):
    c = os.path.join(base, 'etc', rnd.choice(['passwd', 'group', 'debian_version', 'fstab']))
    if os.path.exists(c):
        os.chmod(c, rnd.choice([0o644, 0o600]))
        write(c, 'x', 'a')
        want(read(c)[-1], 'x')


def over(p):
    write(p, 'a')
    write(p + 'z', 'b')
    os.rename(p, p + 'z')
    want((read(p + 'z'), os.path.exists(p)), ('a', False))
    os.unlink(p + 'z')


def listing(p):
    os.mkdir(p)
    files = [open(p + '/%d' % i, 'w') for i in range(10)]
    entries = os.scandir(p)
    first = next(entries).name
    os.unlink(os.path.join(p, first))
    pause()
    rest = [e.name for e in entries]
    want(sorted(rest + [first]), sorted(map(str, range(10))))
    for name in rest:
        os.unlink(os.path.join(p, name))
    for f in files:
        f.write('q')
        f.close()
    os.rmdir(p)


steps = [tree, unlinked, links, content, nameless, append, image, over, listing]
os.makedirs(top, exist_ok=True)
done, worst = 0, 0
while not os.path.exists(stop):
    step, began = rnd.choice(steps), time.time()
    try:
        step(os.path.join(top, 'x%d' % rnd.randrange(5)))
    except Exception as e:
        sys.exit('step %d, %s: %r' % (done, step.__name__, e))
    done, worst = done + 1, max(worst, time.time() - began)
    if done == 1:
        write(stop + str(seed), '')
print(done, '%.2f' % worst)
