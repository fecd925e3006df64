import sys, random, time, shutil, tempfile
from pathlib import Path
from collections import Counter
from tests.faults.killing import Forks
from tests.faults import simulated
from tests.faults.simulated import CASES
stride=int(sys.argv[1]); mode=sys.argv[2]; names=sys.argv[3:] or list(CASES)
def diff(a,b):
    for key in a:
        if a[key]!=b[key]:
            if key=="trials":
                for x,y in zip(a[key],b[key]):
                    if x!=y: return {k:(x[k],y[k]) for k in x if x[k]!=y[k]}, x["number"]
                return len(a[key]),len(b[key])
            if isinstance(a[key], list): return key, len(a[key]), len(b[key])
            return key,a[key],b[key]
with Forks(Path(tempfile.mkdtemp(dir='/dev/shm'))) as forks:
    for name in names:
        tmp=Path(tempfile.mkdtemp(dir='/dev/shm'))
        e=forks.run("tests.faults.simulated:search", str(tmp/'w'), name)
        assert e.code==0,e
        whole=simulated.leavings(tmp/'w',name)
        print(name,e.instants,round(e.seconds,2),Counter(t['state']+('*' if t['attributes'].get('inherited_from') is not None else '') for t in whole['trials']), 'audits', sum('audited_against' in t['attributes'] for t in whole['trials']), 'twins', sum('twin_of' in t['attributes'] for t in whole['trials']), flush=True)
        rng=random.Random(0); n=e.instants; bad=0; t0=time.time()
        plans=[[k] for k in range(1+rng.randrange(stride),n,stride)] if mode=='each' else [[rng.randrange(1,n//3) for _ in range(rng.randrange(2,6))] for _ in range(stride)]
        for plan in plans:
            p=tmp/'r'; shutil.rmtree(p,ignore_errors=True)
            for k in [*plan,None]:
                e=forks.run("tests.faults.simulated:search", str(p), name, at=k)
                if e.code==0: break
                if not e.killed: print(plan,e.code,e.err[-600:]); break
            try: why=None if simulated.leavings(p,name)==whole else diff(whole,simulated.leavings(p,name))
            except Exception as x: why=repr(x)
            if why: bad+=1; print('  ',plan,str(why)[:700],flush=True) if bad<5 else 0
        print('  ',bad,'of',len(plans),'differ',round(time.time()-t0),'s',flush=True)
        shutil.rmtree(tmp)
