const kind = pairKind({ArrowLeft: 'left', ArrowRight: 'right', ArrowDown: 'tie', 1: 'left', 2: 'tie', 3: 'right'});
